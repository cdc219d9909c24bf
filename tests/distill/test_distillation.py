"""What a trial compares: gains, and the teacher's channels that a narrower student stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.ladder import RateLadder
from models.weights import WeightsDescription
from orchestrator.distill.distillation import Distillation
from orchestrator.spec.loss import Loss, Phase
from orchestrator.spec.sections import PRIM_LAMBDAS

BITS = ((0.1, 5.0, 0.2, 3.0), (0.3, 4.0, 0.1, 2.0))


def of(loss: Loss, M: int) -> Distillation:
    """Of a student with M latent channels, and a teacher with 4."""
    student = RateLadder(family="hyperprior", N=4, M=M, lambdas=PRIM_LAMBDAS)
    teacher = WeightsDescription(
        family="hyperprior",
        N=8,
        M=4,
        Z=8,
        encoder_N=8,
        lambdas=PRIM_LAMBDAS,
        kind="variable-rate",
        distortion="mse",
        notes={},
    )
    return Distillation.of(loss, student, teacher, 1, BITS)


def test_channels_are_chosen_by_their_bits_whatever_the_loss_compares() -> None:
    apart = (Phase(apart=True),)  # reads no term, but the decoder reads the chosen channels
    for loss in (Loss(phases=apart, widths="top-entropy"), Loss(latent=1, widths="top-entropy")):
        chosen = of(loss, 2).chosen
        assert chosen is not None and chosen.tolist() == [1, 3]
    assert of(Loss(latent=1), 2).chosen is None


def test_channels_weigh_by_their_share_of_the_bits() -> None:
    weights = of(Loss(channel_entropy=1), 4).channel_weights(1)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([0.3, 4.0, 0.1, 2.0]) / 6.4)
    chosen = of(Loss(channel_entropy=1, widths="top-entropy"), 2).channel_weights(1)
    assert chosen is not None
    torch.testing.assert_close(chosen, torch.tensor([4.0, 2.0]) / 6)


@pytest.mark.parametrize(("encoder_N", "N", "maps"), [(4, 12, {"g_a.3"}), (12, 8, {"g_s.1"}), (12, 12, set())])
def test_an_encoders_taps_are_as_wide_as_the_encoder(encoder_N: int, N: int, maps: set[str]) -> None:
    """The widths of the two transforms may differ, in the student and in the teacher."""
    form: dict[str, Any] = {"family": "hyperprior", "M": 16, "Z": 12, "lambdas": PRIM_LAMBDAS}
    student = RateLadder(N=N, encoder_N=encoder_N, **form)
    teacher = WeightsDescription(
        family="hyperprior",
        N=12,
        M=16,
        Z=12,
        encoder_N=12,
        kind="variable-rate",
        lambdas=PRIM_LAMBDAS,
        distortion="mse",
        notes={},
    )
    loss = Loss(channel_attention=1.0, stages=("analysis-4", "synthesis-8"))
    widths = Distillation.of(loss, student, teacher, 8).widths
    assert {tap.partition(":")[0] for tap, (own, other) in widths.items() if own != other} == maps
