"""The codec: decoding returns the encoder's forward image; what is not intact never reaches the range decoder."""

import json
import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.bitstream import (
    HEADER,
    CodecError,
    Rgb,
    decode,
    decode_image,
    encode_image,
    entropy_id,
    prepare_for_coding,
    to_rgb,
)
from models.families import Kind
from models.ladder import RateLadder, joined
from models.plain_number import shown

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)
KINDS = [(family, kind) for family in ("hyperprior", "mean-scale") for kind in ("variable-rate", "fixed-lambda")]


def ladder(family: str = "hyperprior", kind: Kind = "variable-rate", seed: int = 0) -> RateLadder:
    """Random weights, scaled so that the latent has values beyond 0 and the image is not flat."""
    torch.manual_seed(seed)
    made = RateLadder(family=family, N=8, M=12, lambdas=LAMBDAS, kind=kind).eval()
    with torch.no_grad():
        for network in made.networks:
            network.g_a[-1].weight.mul_(40)
    return made


def photograph(height: int, width: int, seed: int = 0) -> Rgb:
    """A smooth gradient with noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def coding(request):
    return prepare_for_coding(ladder(*request.param))


@pytest.mark.parametrize(("width", "height"), [(511, 333), (1, 1), (64, 128), (65, 1)])
def test_decoded_equals_forward(coding, width, height):
    rgb = photograph(height, width)
    for rate_point in (0, 4):
        stream = encode_image(coding, rgb, rate_point)
        x_hat = decode(coding, stream)
        forward = coding.forward(rgb, rate_point).clamp(0, 1)
        assert x_hat.shape == forward.shape == (3, height, width)
        assert float((x_hat - forward).abs().max()) <= 1e-5
        assert np.array_equal(decode_image(coding, stream), to_rgb(x_hat))


def test_latents_of_the_test_are_not_trivial(coding):
    rgb = photograph(128, 128)
    low, high = (len(encode_image(coding, rgb, rate_point)) for rate_point in (0, 4))
    assert high > 300  # more than a stream of zeros
    if coding.ladder.kind == "variable-rate":
        assert high > low


def test_forward_is_the_plain_ladders_up_to_rounding():
    plain = ladder()
    rgb = photograph(64, 64)
    x = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        expected = plain(x, 3)["x_hat"][0]
    assert float((prepare_for_coding(plain).forward(rgb, 3) - expected).abs().median()) < 1e-5
    assert next(plain.parameters()).dtype == torch.float32


def test_streams_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    rgb = photograph(200, 300)
    try:
        torch.set_num_threads(1)
        stream = encode_image(prepare_for_coding(ladder("mean-scale")), rgb, 4)
        one = decode(prepare_for_coding(ladder("mean-scale")), stream)
        torch.set_num_threads(2)
        assert encode_image(prepare_for_coding(ladder("mean-scale")), rgb, 4) == stream
        two = decode(prepare_for_coding(ladder("mean-scale")), stream)
    finally:
        torch.set_num_threads(threads)
    assert float((one - two).abs().max()) <= 1e-5


def test_gain_between_rate_points():
    coding = prepare_for_coding(ladder())
    rgb = photograph(100, 70)
    sizes = []
    for gain in (0.1, 0.33, 1.0, 2.0):
        stream = encode_image(coding, rgb, gain)
        assert float((decode(coding, stream) - coding.forward(rgb, gain).clamp(0, 1)).abs().max()) <= 1e-5
        sizes.append(len(stream))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@pytest.mark.parametrize(
    ("rate_point", "line"),
    [
        (-1, "rate point -1 is not one of 0 to 4"),
        (5, "rate point 5 is not one of 0 to 4"),
        (0.0, "gain 0.0 is not a number above 0"),
        (-0.5, "gain -0.5 is not a number above 0"),
        (float("nan"), "gain nan is not a number above 0"),
        (2.1, "gain 2.1 is not above 0 and at most 2"),
        (1e-6, "gain 1e-06 is not above 0 and at most 2"),
    ],
)
def test_impossible_rate_points_are_refused(rate_point, line):
    with pytest.raises(CodecError) as raised:
        encode_image(prepare_for_coding(ladder()), photograph(8, 8), rate_point)
    assert str(raised.value) == line


def test_no_gain_in_a_fixed_lambda_ladder():
    with pytest.raises(CodecError) as raised:
        encode_image(prepare_for_coding(ladder(kind="fixed-lambda")), photograph(8, 8), 0.5)
    assert str(raised.value) == "gain 0.5: a rate point of a fixed-lambda ladder is a whole number from 0 to 4"


def test_an_image_is_clamped_and_rounded_to_the_nearest_value():
    row = torch.tensor([-0.5, 0.0, 0.4985, 0.5, 1.0, 1.5])
    rgb = to_rgb(torch.stack([row, row.flip(0), 1 - row])[:, None])
    assert rgb.shape == (1, 6, 3) and rgb.dtype == np.uint8
    assert rgb[0].T.tolist() == [[0, 0, 127, 128, 255, 255], [255, 255, 128, 127, 0, 0], [255, 255, 128, 128, 0, 0]]


WHOLE: dict[str, Any] = {
    "NumPy": np.int64(1),
    "an array without dimensions": np.array(1, np.uint8),
    "torch": torch.tensor(1),
    "pandas": pd.Series([0, 1], dtype="Int64").iloc[1],
    "a column": pd.DataFrame({"rate_point": [1]})["rate_point"].iloc[0],
    "JSON": json.loads("1"),
}
GAINS: dict[str, Any] = {
    "NumPy": np.float64(0.5),
    "half": np.float16(0.5),
    "torch": torch.tensor(0.5),
    "a fraction": Fraction(1, 2),
}


def test_a_whole_number_of_any_library_is_a_rate_point(coding):
    rgb = photograph(64, 64)
    expected, other = encode_image(coding, rgb, 1), encode_image(coding, rgb, 4)
    assert expected != other
    assert [name for name, value in WHOLE.items() if encode_image(coding, rgb, value) != expected] == []
    for value in WHOLE.values():
        assert torch.equal(coding.forward(rgb, value), coding.forward(rgb, 1))


def test_a_real_number_of_any_library_is_a_gain():
    coding, rgb = prepare_for_coding(ladder()), photograph(64, 64)
    expected = encode_image(coding, rgb, 0.5)
    assert [name for name, value in GAINS.items() if encode_image(coding, rgb, value) != expected] == []


@pytest.mark.parametrize("value", [True, np.True_, None, "1", [1], pd.NA, np.array([1]), 1j, Fraction(10) ** 400])
def test_what_is_no_number_is_one_line(coding, value):
    with pytest.raises(CodecError) as raised:
        encode_image(coding, photograph(8, 8), value)
    gain = "" if coding.ladder.kind == "fixed-lambda" else ", or a gain"
    assert str(raised.value) == f"rate point {shown(value)} is not a number: a whole number from 0 to 4{gain}"


KIND = "a photograph is uint8 [height, width, 3], not"


@pytest.mark.parametrize(
    ("rgb", "line"),
    [
        (np.zeros((8, 8, 3), np.float32), f"{KIND} float32 [8, 8, 3]"),
        (np.zeros((8, 8), np.uint8), f"{KIND} uint8 [8, 8]"),
        (np.zeros((8, 8, 4), np.uint8), f"{KIND} uint8 [8, 8, 4]"),
        (np.zeros((0, 8, 3), np.uint8), "8x0 pixels: a side has 1 to 65535"),
        (np.zeros((8, 0, 3), np.uint8), "0x8 pixels: a side has 1 to 65535"),
        (np.zeros((65536, 1, 3), np.uint8), "1x65536 pixels: a side has 1 to 65535"),
        (np.zeros((1, 65536, 3), np.uint8), "65536x1 pixels: a side has 1 to 65535"),
    ],
)
def test_an_array_that_is_no_photograph_is_refused(rgb, line):
    with pytest.raises(CodecError) as raised:
        encode_image(prepare_for_coding(ladder()), rgb, 0)
    assert str(raised.value) == line


@pytest.fixture
def guarded(monkeypatch):
    """A coding ladder whose range decoder fails the test when it is reached."""
    coding = prepare_for_coding(ladder())
    stream = encode_image(coding, photograph(40, 30), 2)
    monkeypatch.setattr(
        type(coding.ladder), "decompress", lambda *_: pytest.fail("the range decoder saw a damaged stream")
    )
    return coding, stream


FOREIGN, MISMATCH = "not a stream of this codec", "damaged stream: its checksum does not match"


def refused(coding, stream: bytes) -> str:
    with pytest.raises(CodecError) as caught:
        decode_image(coding, stream)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_flipped_bit_is_refused(guarded):
    coding, stream = guarded
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(coding, bytes(damaged))


def test_every_truncation_and_foreign_bytes_are_refused(guarded):
    coding, stream = guarded
    for length in range(len(stream)):
        short = f"damaged stream: {length} bytes, the header alone has {HEADER.size}"
        line = FOREIGN if length < 2 else short if length < HEADER.size else MISMATCH
        assert refused(coding, stream[:length]) == line
    for foreign in (
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        stream + b"\0",
        stream[HEADER.size :],
        bytes(len(stream)),
        b"LD" + bytes(40),
    ):
        refused(coding, foreign)


def test_streams_of_another_entropy_model_are_refused(guarded):
    coding, stream = guarded
    other = prepare_for_coding(ladder(seed=1))
    own, foreign = (ladder.entropy_id[:6] for ladder in (coding, other))
    assert refused(other, stream) == f"stream of entropy model {own}; this codec has {foreign}"


def test_streams_of_an_earlier_version_are_refused(guarded):
    coding, stream = guarded
    for length in (3, 17, len(stream)):  # the header of version 1 was shorter
        assert refused(coding, b"LD\x01" + stream[3:length]) == "stream of version 1; this codec reads version 2"


def test_one_entropy_model_reads_the_streams_of_all_its_encoders_with_any_decoder():
    wide = ladder()
    narrow = ladder(seed=1)
    for name, parameter in narrow.named_parameters():
        if ".g_a." not in name and ".g_s." not in name:
            parameter.data.copy_(dict(wide.named_parameters())[name].data)
    encoder, decoder = prepare_for_coding(narrow), prepare_for_coding(wide)
    assert encoder.entropy_id == decoder.entropy_id
    rgb = photograph(70, 100)
    pair = prepare_for_coding(joined(narrow, wide))
    for rate_point in range(5):
        stream = encode_image(encoder, rgb, rate_point)
        assert stream == encode_image(pair, rgb, rate_point)
        assert torch.equal(decode(decoder, stream), decode(pair, stream))
        assert not torch.equal(decode(decoder, stream), decode(encoder, stream))


def test_other_rate_points_are_another_entropy_model():
    def made(lambdas: tuple[float, ...]) -> RateLadder:
        torch.manual_seed(0)
        return RateLadder(family="hyperprior", N=4, M=6, lambdas=lambdas)

    assert entropy_id(made(LAMBDAS)) == entropy_id(made(LAMBDAS)) != entropy_id(made((0.002, *LAMBDAS[1:])))


def test_a_contradicting_header_with_a_right_checksum_is_refused(guarded):
    coding, stream = guarded
    contradicts = "damaged stream: its header contradicts its length"
    for field, value, line in (
        (1, 99, "stream of version 99; this codec reads version 2"),
        (3, 9, "damaged stream: rate point 9 of 5"),
        (4, 0, contradicts),
        (5, 0, contradicts),
        (6, len(stream), contradicts),
    ):
        header = list(HEADER.unpack_from(stream))
        header[field] = value
        header[7] = 0
        unsigned = HEADER.pack(*header)[:-4]
        payload = stream[HEADER.size :]
        checksum = zlib.crc32(payload, zlib.crc32(unsigned))
        assert refused(coding, unsigned + struct.pack(">I", checksum) + payload) == line


def test_header_is_small():
    assert HEADER.size <= 20
