"""Every family's real bitstreams: what is decoded is what the encoder's forward pass promised, at any size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lic_codec.container import parse
from models.bitstream import Rgb, decode_image, encode_image, prepare_for_coding
from models.families import FAMILIES, Kind
from models.ladder import RateLadder
from orchestrator.evaluation.rate_distortion import coded

pytestmark = pytest.mark.slow  # codes hundreds of pictures; test_bitstream.py has the quick ones

LAMBDAS = (0.0018, 0.0067, 0.025)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
SIZES = [(1, 1), (17, 33), (64, 64), (65, 127), (500, 1), (1, 500), (63, 65), (128, 64)]
SIZES += [(4000, 16), (3, 200), (211, 99), (192, 129)]  # width, height


def ladder(family: str, kind: Kind) -> RateLadder:
    """Random weights with a latent beyond 0 and pictures inside 0..1, where clamping hides nothing."""
    torch.manual_seed(0)
    made = RateLadder(family=family, N=8, M=12, Z=10, lambdas=LAMBDAS, kind=kind).eval()
    with torch.no_grad():
        for network in made.networks:
            y = network.g_a(torch.rand(1, 3, 64, 64))
            for parameter in network.g_a[-1].parameters():
                parameter.mul_(4 / y.std())
            *_, last = (module for module in network.g_s.modules() if isinstance(module, CONVOLUTIONS))
            last.weight.mul_(0.1 / network.g_s(network.g_a(torch.rand(1, 3, 64, 64))).std())
            assert last.bias is not None
            last.bias.fill_(0.5)
    return made


def photograph(width: int, height: int) -> Rgb:
    """A gradient with noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(width + height)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(
    scope="module", params=[(family, kind) for family in FAMILIES for kind in ("variable-rate", "fixed-lambda")]
)
def coding(request):
    return prepare_for_coding(ladder(*request.param))


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_the_decoders_latent_is_the_encoders_and_bytes_are_the_reported_rate(coding, size):
    rgb = photograph(*size)
    # `coded` compares the decoder's latent with the encoder's, and raises if they differ.
    measured = list(coded(coding, [("it", rgb)], range(len(LAMBDAS))))
    sizes = [row.bytes or 0 for row in measured]
    assert len(encode_image(coding, rgb, 1)) == sizes[1]
    for row, stream_bytes in zip(measured, sizes, strict=True):
        assert row.bpp * size[0] * size[1] == pytest.approx(8 * stream_bytes)
    if coding.ladder.kind == "variable-rate" and min(size) >= 64:
        assert sizes[0] < sizes[-1]


def test_pictures_of_this_test_are_not_trivial(coding):
    stream = encode_image(coding, photograph(128, 128), 2)
    rgb = decode_image(coding, stream)
    assert len(stream) > 300 and rgb.std() > 2
    assert ((rgb > 0) & (rgb < 255)).mean() > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_gains_between_the_rate_points(family):
    coding = prepare_for_coding(ladder(family, "variable-rate"))
    sizes = [row.bytes or 0 for row in coded(coding, [("it", photograph(100, 70))], (0.1, 0.33, 1.0, 2.0))]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_are_read_at_any_number_of_threads(family):
    threads, rgb = torch.get_num_threads(), photograph(128, 100)
    made = ladder(family, "variable-rate")
    stream = encode_image(prepare_for_coding(made), rgb, 2)
    read = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            read.append(prepare_for_coding(made).codec.decode_latent(parse(stream))[1])
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(read[0], read[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_photographs_of_several_parts_are_those_of_one(family):
    coding = prepare_for_coding(ladder(family, "variable-rate"))
    parts, rgb, rate = replace(coding.codec, part=2), photograph(700, 460), coding.rate(2)
    whole, apart = (codec.analyse(rgb, rate).of_network[0] for codec in (coding.codec, parts))
    assert np.abs(whole - apart).max() < 1e-3 * np.abs(whole).max()
    stream = encode_image(coding, rgb, 2)
    assert np.abs(parts.decode(stream).astype(int) - decode_image(coding, stream)).max() <= 1
