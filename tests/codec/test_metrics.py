"""PSNR and MS-SSIM against pytorch-msssim, and targets of bits and PSNR."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as torchs

from lic_codec.codec import Codec
from lic_codec.errors import CodecError
from lic_codec.metrics import ms_ssim, psnr_db
from lic_codec.targets import Target, encode
from models.bitstream import prepare_for_coding
from models.ladder import RateLadder


@pytest.mark.parametrize(("height", "width"), [(161, 200), (256, 256), (333, 211)])
def test_ms_ssim_is_pytorchs(height, width):
    rng = np.random.default_rng(height)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    one, other = (
        np.clip(ramp + rng.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8) for noise in (5, 25)
    )
    tensors = (torch.from_numpy(rgb).permute(2, 0, 1)[None].float() for rgb in (one, other))
    assert ms_ssim(one, other) == pytest.approx(float(torchs(*tensors, data_range=255.0)), abs=2e-5)


def test_equal_and_small_and_unequal_pictures():
    rgb = np.zeros((200, 160, 3), np.uint8)
    assert psnr_db(rgb, rgb) == float("inf") and ms_ssim(rgb, rgb) is None
    with pytest.raises(CodecError, match="160x200 and 160x199 pixels cannot be compared"):
        psnr_db(rgb, rgb[1:])


@pytest.fixture(scope="module", params=["variable-rate", "fixed-lambda"])
def codec(request) -> Codec:
    torch.manual_seed(0)
    made = RateLadder(family="hyperprior", N=8, M=12, lambdas=(0.002, 0.01, 0.05), kind=request.param).eval()
    with torch.no_grad():
        for place, network in enumerate(made.networks):
            network.g_a[-1].weight.mul_(40 * (1 + place))
    return prepare_for_coding(made).codec


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)


def bpp(stream: bytes) -> float:
    return 8 * len(stream) / (64 * 128)


def test_bits_are_met_from_below(codec):
    lowest, highest = (bpp(encode(codec, PHOTOGRAPH, Target(rate=rate))) for rate in (0, 2))
    middle = (lowest + highest) / 2
    found = bpp(encode(codec, PHOTOGRAPH, Target(bpp=middle)))
    assert lowest <= found <= middle
    if codec.entropy.variable:
        assert found > 0.97 * middle


def test_psnr_is_met_from_above(codec):
    values = [psnr_db(PHOTOGRAPH, codec.decode(encode(codec, PHOTOGRAPH, Target(rate=rate)))) for rate in (0, 1, 2)]
    wanted = sorted(values)[1] - 1e-3
    assert psnr_db(PHOTOGRAPH, codec.decode(encode(codec, PHOTOGRAPH, Target(psnr=wanted)))) >= wanted


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ({"bpp": 1e-4}, r"bpp 0.0001: this model needs at least \d+\.\d+ for this picture"),
        ({"psnr": 99.0}, r"psnr 99: this model reaches \d+\.\d+ dB with this picture"),
        ({"rate": 3.0}, r"rate 3.0 is not one of 0 to 2"),
        ({"rate": -1.0}, r"rate -1.0 is not one of 0 to 2"),
    ],
)
def test_what_cannot_be_reached_is_one_line(codec, target, line):
    with pytest.raises(CodecError, match=line):
        encode(codec, PHOTOGRAPH, Target(**target))


def test_one_target_alone():
    with pytest.raises(CodecError, match="rate and bpp: one of them is allowed"):
        Target(rate=1.0, bpp=0.5)
