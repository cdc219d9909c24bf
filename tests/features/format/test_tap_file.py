"""What is stored comes back: pixels exactly, floats within half a step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.taps import reduced
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import FeatureError
from orchestrator.features.format.tap_file import StoredTap, encode, quantise
from orchestrator.photographs.crops import cut
from orchestrator.photographs.photos import load_rgb

NOISE = np.random.default_rng(0)


def opened(tap, data) -> StoredTap:
    return StoredTap(tap, MemoryBlob(data))


@pytest.mark.parametrize("tap", ["x", "x_hat"])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (5, 3, 128, 128)])
def test_images_come_back_exactly(tap, shape):
    values = NOISE.integers(0, 256, shape).astype(np.uint8)
    before = values.copy()
    stored = opened(tap, encode(tap, values))
    assert (len(stored), stored.form.shape) == (shape[0], shape[1:])
    np.testing.assert_array_equal(stored.rows(), values)
    np.testing.assert_array_equal(stored.row(shape[0] - 1), values[-1])
    np.testing.assert_array_equal(values, before)  # and the caller's array is left alone


@pytest.mark.parametrize("tap", ["y", "z", "g_a.3:spatial", "g_a.5:raw"])
@pytest.mark.parametrize("scale", [1e-6, 0.02, 1.0, 900.0])
def test_floats_come_back_within_half_a_step(tap, scale):
    values = (NOISE.normal(0, scale, (4, 12, 5, 4)) * NOISE.exponential(1, (1, 12, 1, 1))).astype(np.float32)
    values[1, 2] = 0
    rows = opened(tap, encode(tap, values)).rows()
    assert rows.dtype == np.float32 and rows.shape == values.shape
    smallest = 1 / 16 if tap in ("y", "z") else 0.0
    peak = np.abs(values).max((2, 3), keepdims=True)
    step = np.maximum(peak / 127, smallest) * (1 + 2**-10) + 6e-8  # rounded up to a float16
    assert (np.abs(rows - values) <= step / 2 * (1 + 1e-5)).all()
    assert (rows[1, 2] == 0).all()


def test_the_largest_value_never_overflows_its_byte():
    peaks = np.exp(NOISE.uniform(-12, 11, 20_000)).astype(np.float32)
    stored, step = quantise(np.stack([peaks, -peaks], -1)[:, None, None])
    assert set(np.abs(stored).ravel().tolist()) <= {124, 125, 126, 127, *range(124)}
    np.testing.assert_allclose(stored[:, 0, 0, 0] * step[:, 0].astype(np.float32), peaks, rtol=1 / 127, atol=6e-8)
    assert (stored[:, 0, 0, 0] >= 0).all() and (stored[:, 0, 0, 1] <= 0).all()


def test_channel_statistics_come_back_rounded_to_float16():
    values = NOISE.exponential(3, (4, 12, 1, 1)).astype(np.float32)
    rows = opened("g_a.3:channel", encode("g_a.3:channel", values)).rows()
    np.testing.assert_array_equal(rows, values.astype(np.float16).astype(np.float32))


def test_reductions_are_what_their_formulas_say():
    feature = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    spatial, channel = reduced(feature, "spatial"), reduced(feature, "channel")
    assert spatial.shape == (2, 1, 3, 4) and channel.shape == (2, 5, 1, 1)
    np.testing.assert_allclose(spatial[1, 0, 2, 3], sum(float(v) ** 2 for v in feature[1, :, 2, 3]) / 5, rtol=1e-5)
    np.testing.assert_allclose(channel[1, 4], sum(float(v) ** 2 for v in feature[1, 4].ravel()) / 12, rtol=1e-5)
    assert torch.equal(reduced(feature, "raw"), feature)
    assert reduced(feature.bfloat16(), "spatial").dtype == torch.float32


def test_photographs_take_two_thirds_of_their_pixels(train_photographs, plan):
    photographs = {photograph.digest: photograph for photograph in train_photographs}
    pixels = [cut(load_rgb(photographs[crop.photograph]), crop).transpose(2, 0, 1) for crop in plan.crops[:32]]
    values = np.stack(pixels)
    assert len(encode("x", values)) < 0.7 * values.nbytes


def test_equal_input_gives_equal_bytes():
    values = NOISE.integers(0, 256, (2, 3, 64, 64)).astype(np.uint8)
    assert len({encode("x", values.copy()) for _ in range(20)}) == 1


@pytest.mark.parametrize(("tap", "value"), [("y", np.nan), ("y", np.inf), ("y", 1e7), ("g_a.1:channel", 70_000.0)])
def test_values_that_cannot_be_stored_are_refused(tap, value):
    with pytest.raises(FeatureError, match=f"tap {tap}: the teacher gave values that are not finite or too large"):
        encode(tap, np.full((1, 1, 1, 1), value, np.float32))


def test_pixels_are_not_rounded_silently():
    with pytest.raises(TypeError, match="not float32"):
        encode("x", np.zeros((1, 3, 64, 64), np.float32))


def test_every_truncation_and_every_flipped_byte_is_seen():
    data = encode("y", NOISE.normal(0, 3, (2, 2, 4, 4)).astype(np.float32))
    values = opened("y", data).rows()
    for length in range(len(data)):
        with pytest.raises(FeatureError):
            opened("y", data[:length]).rows()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        try:
            rows = opened("y", bytes(flipped)).rows()
        except FeatureError:
            continue
        # a few bits of a zstd frame's header mean nothing, nor do blanks after the file's own header
        np.testing.assert_array_equal(rows, values)


def test_a_format_that_is_documented():
    """Read by safetensors and zstd alone, as docs/feature-store.md says."""
    import zstandard
    from safetensors.numpy import load

    values = NOISE.normal(0, 3, (3, 2, 4, 4)).astype(np.float32)
    data = encode("y", values)
    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    head = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tap"])
    assert head == {"format": 2, "tap": "y", "codec": "q8/1", "shape": [2, 4, 4], "dtype": "int8"}
    begin, end = tensors["offsets"][1:3]
    payload = zstandard.decompress(tensors["frames"][begin:end].tobytes())
    steps = np.frombuffer(payload, np.float16, 2)
    np.testing.assert_allclose(
        np.frombuffer(payload, np.int8, offset=4).reshape(2, 4, 4) * steps[:, None, None].astype(np.float32),
        opened("y", data).row(1),
    )


def test_another_taps_bytes_are_refused():
    with pytest.raises(FeatureError, match=r"tap y: not a stored tap .format 2, tap 'x', codec 'u8/1'"):
        opened("y", encode("x", np.zeros((1, 3, 64, 64), np.uint8)))
    with pytest.raises(FeatureError, match="tap z: not a stored tap"):
        opened("z", encode("y", np.zeros((1, 3, 4, 4), np.float32)))
    for junk in (b"", b"junk", bytes(100), b"\xff" * 1000):
        with pytest.raises(FeatureError, match="not a stored tap"):
            opened("x", junk)
