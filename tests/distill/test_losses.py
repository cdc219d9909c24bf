"""Each loss term equals its formula, computed by hand."""

import math
from typing import Any

import pytest
import torch

from orchestrator.distill.losses import (
    attention_distance,
    bits_per_pixel,
    distillation_terms,
    image_distortion,
    latent_distortion,
    latent_divergence,
    weighted_latent_distortion,
)
from orchestrator.distill.targets import Pair
from orchestrator.spec.loss import LossWeights

TAPS = {
    "latent": "y",
    "latent_kl": "y",
    "channel_entropy": "y",
    "hyper_latent": "z",
    "reconstruction": "x_hat",
    "spatial_attention": "g_a.3:spatial",
    "channel_attention": "g_a.3:channel",
}


def test_bits_per_pixel_of_known_likelihoods():
    likelihoods = {"y": torch.full((2, 3, 4, 4), 0.25), "z": torch.full((2, 2, 1, 1), 0.5)}
    assert bits_per_pixel(likelihoods, 2 * 64 * 64).item() == pytest.approx(
        (2 * 3 * 16 * 2 + 2 * 2 * 1) / (2 * 64 * 64)
    )


def test_image_distortion_counts_in_eight_bit_steps():
    x = torch.zeros(1, 3, 8, 8)
    assert image_distortion(x + 2 / 255, x, 0.01).item() == pytest.approx(0.01 * 4)


def test_image_distortion_by_ms_ssim_is_lambda_times_what_it_lacks():
    x = torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    assert image_distortion(x, x, 5.0, "ms-ssim").item() == pytest.approx(0.0, abs=1e-5)
    flat = image_distortion(torch.full_like(x, 0.5), x, 5.0, "ms-ssim").item()
    assert 4.0 < flat <= 5.0  # nothing of the noise is kept
    assert image_distortion(torch.full_like(x, 0.5), x, 10.0, "ms-ssim").item() == pytest.approx(2 * flat)


def test_latent_distortion_counts_in_quantisation_steps():
    y = torch.zeros(1, 4, 2, 2)
    assert latent_distortion(y + 3.0, y + 1.0, 0.5, 0.25).item() == pytest.approx((1.5 - 0.25) ** 2)


def test_latent_divergence_is_of_the_channels_of_each_position():
    student = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]).reshape(1, 3, 2, 1)  # three channels, two positions
    teacher = torch.tensor([[3.0, 0.0], [1.0, math.log(3)], [0.0, 2.0]]).reshape(1, 3, 2, 1)
    expected = 0.0
    for position in range(2):
        q, p = (
            [math.exp(gain * float(latent[0, channel, position, 0])) for channel in range(3)]
            for latent, gain in ((student, 0.5), (teacher, 2.0))
        )
        q, p = [value / sum(q) for value in q], [value / sum(p) for value in p]
        expected += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True)) / 2
    assert latent_divergence(student, teacher, 0.5, 2.0).item() == pytest.approx(expected)


def test_weighted_latent_distortion_weighs_each_channel_by_its_own_weight():
    y, teacher = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    teacher[:, 0], teacher[:, 1], teacher[:, 2] = 1.0, 2.0, 4.0
    weights = torch.tensor([0.5, 0.3, 0.2])
    expected = 0.5 * 0.25 + 0.3 * 1.0 + 0.2 * 4.0  # the teacher's gain is 0.5
    assert weighted_latent_distortion(y, teacher, weights, 1.0, 0.5).item() == pytest.approx(expected)
    even = weighted_latent_distortion(y, teacher, torch.full((3,), 1 / 3), 1.0, 0.5)
    assert even.item() == pytest.approx(latent_distortion(y, teacher, 1.0, 0.5).item())


def test_attention_distance_compares_directions_crop_by_crop():
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    teacher = torch.tensor([[8.0, 6.0], [0.0, 7.0]]).reshape(2, 1, 1, 2)
    first = (0.6 - 0.8) ** 2 + (0.8 - 0.6) ** 2
    assert attention_distance(student, teacher).item() == pytest.approx((first + 2.0) / 2)
    assert attention_distance(5 * student, student).item() == pytest.approx(0.0, abs=1e-12)


@pytest.fixture
def output():
    torch.manual_seed(0)
    return {
        "x_hat": torch.rand(2, 3, 16, 32),
        "y": torch.rand(2, 4, 1, 1),
        "z": torch.rand(2, 2, 1, 1),
        "g_a.3:spatial": torch.rand(2, 1, 4, 4),
        "g_a.3:channel": torch.rand(2, 6, 1, 1),
        "likelihoods": {"y": torch.rand(2, 4, 1, 1), "z": torch.rand(2, 2, 1, 1)},
    }


@pytest.fixture
def targets(output):
    return {name: torch.rand_like(value) for name, value in output.items() if name != "likelihoods"}


def terms_of(output, x, targets, weights, gains=None, **others):
    every = dict.fromkeys(TAPS, 0.5) | (gains or {})
    known: dict[str, Any] = {
        "pairs": [Pair(term=term, student=tap, teacher=tap) for term, tap in TAPS.items()],
        "channel_weights": torch.tensor([0.4, 0.3, 0.2, 0.1]),
    }
    return distillation_terms(
        output, x, targets, lmbda=0.013, gain=0.72, teacher_gains=every, weights=weights, **known | others
    )


def test_the_sum_weighs_each_term_by_its_own_weight(output, targets):
    x = torch.rand(2, 3, 16, 32)
    given = dict(zip(TAPS, (0.3, 0.01, 0.7, 0.05, 0.1, 0.2, 0.9), strict=True))
    terms = terms_of(output, x, targets, LossWeights(rate_distortion=0.6, **given), {"latent": 0.4})
    bits = -sum(value.log().sum().item() for value in output["likelihoods"].values()) / math.log(2)
    y, y_teacher = 0.72 * output["y"], 0.5 * targets["y"]
    squares = (y - y_teacher).square()
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1]).reshape(1, 4, 1, 1)
    by_hand = {
        "bpp": bits / 1024,
        "distortion": 0.013 * 255**2 * (output["x_hat"] - x).square().mean(),
        "latent": (y - 0.4 * targets["y"]).square().mean(),
        "latent_kl": latent_divergence(output["y"], targets["y"], 0.72, 0.5),
        "channel_entropy": (shares * squares).sum() / 2,
        "hyper_latent": (output["z"] - targets["z"]).square().mean(),
        "reconstruction": 0.013 * 255**2 * (output["x_hat"] - targets["x_hat"]).square().mean(),
        "spatial_attention": attention_distance(output["g_a.3:spatial"], targets["g_a.3:spatial"]),
        "channel_attention": attention_distance(output["g_a.3:channel"], targets["g_a.3:channel"]),
    }
    assert set(terms) == {*by_hand, "loss"}
    for name, value in by_hand.items():
        assert terms[name].item() == pytest.approx(float(value), rel=1e-5), name
    expected = 0.6 * (by_hand["bpp"] + by_hand["distortion"]) + sum(
        weight * by_hand[term] for term, weight in given.items()
    )
    assert terms["loss"].item() == pytest.approx(float(expected), rel=1e-5)


def test_a_term_of_several_taps_is_their_sum(output, targets):
    both = [Pair(term="spatial_attention", student=f"g_a.{i}:spatial", teacher=f"g_a.{i}:spatial") for i in (3, 5)]
    output["g_a.5:spatial"], targets["g_a.5:spatial"] = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    terms = distillation_terms(
        output,
        torch.rand(2, 3, 16, 32),
        targets,
        lmbda=0.013,
        gain=1.0,
        teacher_gains={"spatial_attention": 1.0},
        weights=LossWeights(spatial_attention=2.0),
        pairs=both,
    )
    apart = [attention_distance(output[pair.student], targets[pair.teacher]).item() for pair in both]
    assert terms["spatial_attention"].item() == pytest.approx(sum(apart))
    assert terms["loss"].item() == pytest.approx((terms["bpp"] + terms["distortion"]).item() + 2 * sum(apart))


def test_the_control_needs_no_teacher(output):
    terms = terms_of(output, torch.rand(2, 3, 16, 32), {}, LossWeights())
    assert set(terms) == {"bpp", "distortion", "loss"}
    assert terms["loss"].item() == pytest.approx((terms["bpp"] + terms["distortion"]).item())


def test_a_missing_target_is_an_error_not_a_silent_zero(output):
    with pytest.raises(KeyError, match="x_hat"):
        terms_of(output, torch.rand(2, 3, 16, 32), {}, LossWeights(reconstruction=1.0))


def test_a_term_without_what_it_needs_is_one_line(output, targets):
    x, weights = torch.rand(2, 3, 16, 32), LossWeights(latent=1.0, hyper_latent=0.5)
    with pytest.raises(ValueError, match=r"^nothing to compare for hyper_latent, latent, which has a weight$"):
        terms_of(output, x, targets, weights, pairs=[])
    with pytest.raises(ValueError, match=r"^channel_entropy needs channel_weights$"):
        terms_of(output, x, targets, LossWeights(channel_entropy=1.0), channel_weights=None)
