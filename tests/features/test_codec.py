"""What is stored comes back: pixels exactly, latents to float16."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.crops import cut
from orchestrator.features.codec import decode, encode
from orchestrator.features.key import FeatureError
from orchestrator.photos import load_rgb

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize("tap", ["x", "x_hat"])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (5, 3, 128, 128)])
def test_images_come_back_exactly(tap, shape):
    values = NOISE.integers(0, 256, shape).astype(np.uint8)
    before = values.copy()
    np.testing.assert_array_equal(decode(tap, encode(tap, values)), values)
    np.testing.assert_array_equal(values, before)  # and the caller's array is left alone


def test_latents_come_back_rounded_to_float16():
    values = NOISE.normal(0, 30, (4, 12, 4, 4)).astype(np.float32)
    found = decode("y", encode("y", values))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values.astype(np.float16))


def test_photographs_take_less_than_their_pixels(train_photographs, plan):
    photographs = {photograph.digest: photograph for photograph in train_photographs}
    pixels = [cut(load_rgb(photographs[crop.photograph]), crop).transpose(2, 0, 1) for crop in plan.crops[:32]]
    values = np.stack(pixels)
    assert len(encode("x", values)) < 0.8 * values.nbytes


def test_equal_input_gives_equal_bytes():
    values = NOISE.integers(0, 256, (2, 3, 64, 64)).astype(np.uint8)
    assert len({encode("x", values.copy()) for _ in range(20)}) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_latents_beyond_float16_are_refused(value):
    with pytest.raises(FeatureError, match="tap y: the teacher gave values that are not finite or exceed float16"):
        encode("y", np.full((1, 1, 1, 1), value, np.float32))


def test_pixels_are_not_rounded_silently():
    with pytest.raises(TypeError, match="not float32"):
        encode("x", np.zeros((1, 3, 64, 64), np.float32))


def test_every_truncation_and_every_flipped_byte_is_seen():
    data = encode("y", NOISE.normal(0, 3, (1, 2, 4, 4)).astype(np.float32))
    for length in range(len(data)):
        with pytest.raises(FeatureError):
            decode("y", data[:length])
    values = decode("y", data)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        try:
            found = decode("y", bytes(flipped))
        except FeatureError:
            continue
        # a few bits of a zstd frame's header mean nothing
        assert place < 16
        np.testing.assert_array_equal(found, values)


def test_another_taps_bytes_are_refused():
    with pytest.raises(FeatureError, match="tap y: holds uint8"):
        decode("y", encode("x", np.zeros((1, 3, 64, 64), np.uint8)))
    with pytest.raises(FeatureError, match="tap x: holds float16"):
        decode("x", encode("y", np.zeros((1, 3, 4, 4), np.float32)))
    with pytest.raises(FeatureError, match="not a stored tap"):
        decode("x", b"")
