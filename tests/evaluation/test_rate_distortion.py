"""Measured figures against figures recomputed from the bytes and the likelihoods."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from lic_codec.codec import Codec
from lic_codec.errors import MismatchError
from models.bitstream import decode_image, encode_image, prepare_for_coding
from models.ladder import RateLadder
from orchestrator.evaluation.metric import CurvePoint, Measured, psnr_db
from orchestrator.evaluation.rate_distortion import coded, curve, estimate, ms_ssim_of
from orchestrator.photographs.photos import load_rgb

LAMBDAS = (0.0018, 0.0067, 0.025)


@pytest.fixture(scope="module")
def ladder():
    torch.manual_seed(0)
    return RateLadder(family="mean-scale", N=8, M=12, lambdas=LAMBDAS)


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(0)
    return [
        (f"{width}x{height}.png", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in ((64, 64), (70, 33))
    ]


def test_coded_figures_are_those_of_the_bytes(ladder, photographs):
    coding = prepare_for_coding(ladder)
    rows = list(coded(coding, photographs, [0, 2, 0.4]))
    assert [(row.photograph, row.rate_point) for row in rows] == [
        (name, point) for name, _ in photographs for point in (0, 2, 0.4)
    ]
    for row in rows:
        rgb = dict(photographs)[row.photograph]
        stream = encode_image(coding, rgb, row.rate_point)
        assert (row.bytes, row.sha256) == (len(stream), hashlib.sha256(stream).hexdigest())
        assert row.bpp == 8 * len(stream) / (rgb.shape[0] * rgb.shape[1])
        errors = (rgb.astype(int) - decode_image(coding, stream).astype(int)) ** 2
        assert row.mse == pytest.approx(errors.mean() / 255**2, rel=1e-12)
        assert row.psnr_db == pytest.approx(10 * math.log10(255**2 / errors.mean()), abs=1e-9)


def test_estimate_counts_padding_over_the_photographs_own_pixels(ladder, photographs):
    name, rgb = photographs[1]  # 70x33, padded to 128x64
    (row,) = estimate(ladder, [(name, rgb)], [1])
    padded = np.pad(rgb, ((0, 31), (0, 58), (0, 0)), mode="edge")
    with torch.no_grad():
        output = ladder.eval()(torch.from_numpy(padded.transpose(2, 0, 1).copy())[None] / 255, 1)
    bits = sum(-torch.log2(likelihoods).sum().item() for likelihoods in output["likelihoods"].values())
    assert row.bpp == pytest.approx(bits / (70 * 33), rel=1e-5)
    assert row.bytes is None and row.sha256 is None


def test_estimate_leaves_the_mode_of_a_training_ladder_alone(ladder, photographs):
    ladder.train()
    first, second = (list(estimate(ladder, photographs, [1])) for _ in range(2))
    assert ladder.training
    assert first == second  # rounded latents, no noise
    ladder.eval()


def test_a_decoder_that_differs_is_an_error(ladder, photographs, monkeypatch):
    coding = prepare_for_coding(ladder)
    honest = Codec.decode_latent

    def shifted(self, *arguments):
        rate, y_hat = honest(self, *arguments)
        return rate, y_hat + np.float32(1e-5)

    monkeypatch.setattr(Codec, "decode_latent", shifted)
    with pytest.raises(MismatchError, match=r"64x64.png at rate point 0: the decoder's latent is not the encoder's"):
        list(coded(coding, photographs, [0]))


def row(photograph, rate_point, bpp, psnr):
    return Measured(photograph=photograph, rate_point=rate_point, bpp=bpp, psnr_db=psnr, mse=10 ** (-psnr / 10))


def test_curve_averages_psnr_over_photographs():
    points = curve([row("a", 0, 0.2, 30.0), row("a", 1, 0.4, 34.0), row("b", 0, 0.4, 20.0), row("b", 1, 0.8, 28.0)])
    assert [point.rate_point for point in points] == [0, 1]
    assert [point.bpp for point in points] == pytest.approx([0.3, 0.6])
    assert [point.psnr_db for point in points] == [25.0, 31.0]  # not the PSNR of the mean MSE, 22.6 dB
    assert points[0].mse == pytest.approx((1e-3 + 1e-2) / 2)


def own_ms_ssim(one, other) -> float:
    """Wang, Simoncelli and Bovik (2003), of one channel in float64, as the paper has it."""
    ticks = np.arange(-5, 6)
    window = np.exp(-(ticks**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_a, mean_b, aa, bb, ab = (
            fftconvolve(image, window, mode="valid") for image in (one, other, one**2, other**2, one * other)
        )
        contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a**2 + bb - mean_b**2 + c2)
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product *= (contrast if scale < 4 else contrast * luminance).mean() ** weight
        one, other = (image.reshape(len(image) // 2, 2, -1, 2).mean(axis=(1, 3)) for image in (one, other))
    return product


def test_ms_ssim_is_the_papers_over_the_three_channels(validation_photographs):
    rgb = load_rgb(validation_photographs[0])[:192, :256]
    worse = (rgb // 32 * 32 + 16).astype(np.uint8)
    own = [own_ms_ssim(rgb[..., c].astype(np.float64), worse[..., c].astype(np.float64)) for c in range(3)]
    assert ms_ssim_of(rgb, worse) == pytest.approx(np.mean(own), abs=1e-5)
    assert ms_ssim_of(rgb, rgb) == pytest.approx(1.0) and ms_ssim_of(rgb[:160], worse[:160]) is None


def test_a_curve_has_ms_ssim_if_all_photographs_do():
    large = replace(row("a", 0, 0.2, 30.0), ms_ssim=0.9)
    (point,) = curve([large, replace(row("b", 0, 0.4, 20.0), ms_ssim=0.98)])
    assert point.ms_ssim == pytest.approx(0.94) and point.ms_ssim_db == pytest.approx(-10 * math.log10(0.06))
    without = curve([large, row("b", 0, 0.4, 20.0)])[0]
    assert without.ms_ssim is None and "ms_ssim" not in without.to_json()
    assert CurvePoint.from_json(point.to_json()) == point and "ms_ssim_db" in point.to_json()


def test_curve_refuses_different_photographs():
    with pytest.raises(ValueError, match="different photographs"):
        curve([row("a", 0, 0.2, 30.0), row("b", 1, 0.4, 20.0)])


def test_psnr_is_always_finite():
    assert psnr_db(0.0) == 100.0
    assert psnr_db(1.0) == 0.0
    assert psnr_db(1e-3) == pytest.approx(30.0)
