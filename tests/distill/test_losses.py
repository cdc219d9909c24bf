"""The loss terms against their formulas, each by hand."""

import math

import pytest
import torch

from orchestrator.distill.losses import bits_per_pixel, distillation_terms, image_distortion, latent_distortion
from orchestrator.spec import LossWeights


def test_bits_per_pixel_of_known_likelihoods():
    likelihoods = {"y": torch.full((2, 3, 4, 4), 0.25), "z": torch.full((2, 2, 1, 1), 0.5)}
    assert bits_per_pixel(likelihoods, 2 * 64 * 64).item() == pytest.approx(
        (2 * 3 * 16 * 2 + 2 * 2 * 1) / (2 * 64 * 64)
    )


def test_image_distortion_counts_in_eight_bit_steps():
    x = torch.zeros(1, 3, 8, 8)
    assert image_distortion(x + 2 / 255, x, 0.01).item() == pytest.approx(0.01 * 4)


def test_latent_distortion_counts_in_quantisation_steps():
    y = torch.zeros(1, 4, 2, 2)
    assert latent_distortion(y + 3.0, y + 1.0, 0.5, 0.25).item() == pytest.approx((1.5 - 0.25) ** 2)


@pytest.fixture
def output():
    torch.manual_seed(0)
    return {
        "x_hat": torch.rand(1, 3, 16, 16),
        "y": torch.rand(1, 4, 1, 1),
        "likelihoods": {"y": torch.rand(1, 4, 1, 1), "z": torch.rand(1, 2, 1, 1)},
    }


def test_the_sum_weighs_each_term_by_its_own_weight(output):
    x, targets = torch.rand(1, 3, 16, 16), {"x_hat": torch.rand(1, 3, 16, 16), "y": torch.rand(1, 4, 1, 1)}
    weights = LossWeights(rate_distortion=0.6, latent=0.3, reconstruction=0.1)
    terms = distillation_terms(output, x, targets, lmbda=0.013, gain=0.72, teacher_gain=0.5, weights=weights)
    bits = -sum(value.log().sum().item() for value in output["likelihoods"].values()) / math.log(2)
    mse = [(output["x_hat"] - other).square().mean().item() for other in (x, targets["x_hat"])]
    assert terms["bpp"].item() == pytest.approx(bits / 256)
    assert terms["distortion"].item() == pytest.approx(0.013 * 255**2 * mse[0])
    assert terms["reconstruction"].item() == pytest.approx(0.013 * 255**2 * mse[1])
    assert terms["latent"].item() == pytest.approx((0.72 * output["y"] - 0.5 * targets["y"]).square().mean().item())
    expected = 0.6 * (terms["bpp"] + terms["distortion"]) + 0.3 * terms["latent"] + 0.1 * terms["reconstruction"]
    assert terms["loss"].item() == pytest.approx(expected.item())


def test_the_control_needs_no_teacher(output):
    terms = distillation_terms(
        output, torch.rand(1, 3, 16, 16), {}, lmbda=0.013, gain=1.0, teacher_gain=1.0, weights=LossWeights()
    )
    assert set(terms) == {"bpp", "distortion", "loss"}
    assert terms["loss"].item() == pytest.approx((terms["bpp"] + terms["distortion"]).item())


def test_a_missing_target_is_an_error_not_a_silent_zero(output):
    with pytest.raises(KeyError, match="x_hat"):
        distillation_terms(
            output,
            torch.rand(1, 3, 16, 16),
            {},
            lmbda=0.013,
            gain=1.0,
            teacher_gain=1.0,
            weights=LossWeights(reconstruction=1.0),
        )
