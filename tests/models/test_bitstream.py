"""A ladder's streams: what is decoded is what was encoded; whatever the library of a rate point; what is refused."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lic_codec.container import parse
from models.bitstream import CodecError, Rgb, decode_image, encode_image, prepare_for_coding, to_padded_tensor, to_rgb
from models.families import Kind
from models.ladder import RateLadder, joined
from models.plain_number import shown
from models.whole_numbers import entropy_model

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
def test_the_decoder_reads_the_latent_that_the_encoder_wrote(coding, width, height):
    rgb = photograph(height, width)
    for rate_point in (0, 4):
        encoded, _ = coding.encode(rgb, rate_point)
        _, y_hat = coding.codec.decode_latent(parse(encoded.stream))
        assert np.array_equal(y_hat, encoded.y_hat)
        assert encode_image(coding, rgb, rate_point) == encoded.stream
        assert decode_image(coding, encoded.stream).shape == (height, width, 3)


def test_latents_of_the_test_are_not_trivial(coding):
    rgb = photograph(128, 128)
    low, high = (len(encode_image(coding, rgb, rate_point)) for rate_point in (0, 4))
    assert high > 300  # more than a stream of zeros
    if coding.ladder.kind == "variable-rate":
        assert high > low


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_what_is_decoded_is_the_ladders_own_forward_pass_but_for_whole_numbers(family, kind):
    plain, rgb = ladder(family, kind), photograph(128, 192)
    coding = prepare_for_coding(plain)
    with torch.no_grad():
        expected = to_rgb(plain(to_padded_tensor(rgb), 3)["x_hat"][0])
    different = np.abs(decode_image(coding, encode_image(coding, rgb, 3)).astype(int) - expected)
    assert float((different <= 1).mean()) > 0.99  # some symbols fall to the other side of a half
    assert next(plain.parameters()).requires_grad and plain.networks[0].g_a.precision is torch.float32


def test_a_photograph_of_several_parts_is_coded_as_a_whole_one():
    coding = prepare_for_coding(ladder())
    rgb = photograph(400, 330)
    parts = replace(coding.codec, part=2)
    rate = coding.rate(3)
    whole, apart = (codec.analyse(rgb, rate).of_network[0] for codec in (coding.codec, parts))
    assert np.abs(whole - apart).max() < 1e-4 * np.abs(whole).max()
    stream = encode_image(coding, rgb, 3)
    assert np.abs(parts.decode(stream).astype(int) - decode_image(coding, stream)).max() <= 1


def test_streams_are_read_at_any_number_of_threads():
    threads = torch.get_num_threads()
    rgb = photograph(200, 300)
    read = []
    try:
        stream = encode_image(prepare_for_coding(ladder("mean-scale")), rgb, 4)
        for count in (1, 2):
            torch.set_num_threads(count)
            read.append(prepare_for_coding(ladder("mean-scale")).codec.decode_latent(parse(stream))[1])
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(read[0], read[1])


def test_gain_between_rate_points():
    coding = prepare_for_coding(ladder())
    rgb = photograph(100, 70)
    sizes = [len(encode_image(coding, rgb, gain)) for gain in (0.1, 0.33, 1.0, 2.0)]
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


def test_streams_of_another_entropy_model_are_refused():
    own, other = prepare_for_coding(ladder()), prepare_for_coding(ladder(seed=1))
    with pytest.raises(CodecError) as raised:
        decode_image(other, encode_image(own, photograph(40, 30), 2))
    line = f"stream of entropy model {own.entropy_id[:8]}; this codec has {other.entropy_id[:8]}"
    assert str(raised.value) == line


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
        assert np.array_equal(decode_image(decoder, stream), decode_image(pair, stream))
        assert not np.array_equal(decode_image(decoder, stream), decode_image(encoder, stream))


def test_other_rate_points_are_another_entropy_model():
    def made(lambdas: tuple[float, ...]) -> str:
        torch.manual_seed(0)
        return entropy_model(RateLadder(family="hyperprior", N=4, M=6, lambdas=lambdas)).id

    assert made(LAMBDAS) == made(LAMBDAS) != made((0.002, *LAMBDAS[1:]))
