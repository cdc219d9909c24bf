"""Run by test_extending.py in a copy of the packages to which docs/extending.md has added the term `latent_l1`.

It is a program of its own, since a process has the terms of the packages that it has loaded.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import orchestrator.spec.terms
from models.catalogue import build_ladder
from models.ladder import RateLadder
from models.weights import WeightsDescription
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop
from orchestrator.distill.losses import distillation_terms
from orchestrator.distill.process_group import join_process_group, open_rendezvous
from orchestrator.distill.targets import Pair, taps
from orchestrator.features.read.batch import Batch
from orchestrator.spec.load import load_spec
from orchestrator.spec.loss import Loss, LossWeights, TeacherRatePoints
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.messages import SpecError
from orchestrator.spec.sections import PRIM_LAMBDAS, Training
from orchestrator.spec.terms import table

CROPS, SIDE = 4, 64


def ladder(width: int) -> RateLadder:
    torch.manual_seed(width)
    return build_ladder(family="hyperprior", N=width, M=width, lambdas=PRIM_LAMBDAS, kind="variable-rate")


class RandomCrops:
    """A reader of noise, with the teacher's outputs for it."""

    def __init__(self, teacher: RateLadder) -> None:
        self._teacher = teacher.eval()

    def batch(self, step: int) -> Batch:
        x = torch.rand(CROPS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            targets = {"y": self._teacher(x, 0)["y"]}
        return Batch(x=x, rate_point=0, crops=tuple(range(CROPS)), targets=targets)


def trained(loss: Loss) -> dict[str, float]:
    """The mean terms of three steps; the student is narrower than its teacher."""
    student, teacher = ladder(8), ladder(12)
    described = WeightsDescription(
        family="hyperprior",
        kind="variable-rate",
        N=12,
        M=12,
        Z=12,
        encoder_N=12,
        lambdas=teacher.lambdas,
        distortion="mse",
        notes={},
    )
    loop = Loop(
        ladder=student,
        training=Training(batch_size=CROPS, ranks_per_trial=1, zero_stage=0),
        reader=RandomCrops(teacher),
        learning_rate=lambda _images: 1e-3,
        distillation=Distillation.of(loss, student, described, images=3 * CROPS),
    )
    terms = loop.train_to(3 * CROPS)
    loop.close()
    return terms


def main() -> None:
    copy = Path.cwd()
    assert Path(orchestrator.spec.terms.__file__).is_relative_to(copy)
    assert "| `latent_l1` | y | steps |" in table()

    spaces = load_spec(copy / "spec.yaml").losses
    with pytest.raises(SpecError, match="unknown key, did you mean latent_l1"):
        load_spec(copy / "spec.yaml", ["losses.0.latent_l2=0.1"])
    losses = [space.lowest for space in spaces]
    assert losses[0] == Loss(latent_l1=0.1) and not losses[0].is_control
    assert all(taps([(loss, "hyperprior")], teacher="hyperprior", rate_points=5) == ("y",) for loss in losses)
    assert LossSpace(latent_l1={"low": 0.01, "high": 1.0}).ranges.keys() == {"latent_l1"}
    assert Loss(latent_l1=0.1, teacher_rate_point=TeacherRatePoints(latent_l1=2)).rate_point("latent_l1", 5) == 2

    y = torch.rand(2, 4, 4, 4, requires_grad=True)
    x = torch.rand(2, 3, SIDE, SIDE)
    terms = distillation_terms(
        {"x_hat": x, "y": y, "likelihoods": {"y": torch.ones_like(y)}},
        x,
        {"y": torch.rand(2, 4, 4, 4)},
        lmbda=0.013,
        gain=0.7,
        teacher_gains={"latent_l1": 0.5},
        weights=LossWeights(latent_l1=0.1),
        pairs=[Pair(term="latent_l1", student="y", teacher="y")],
    )
    terms["loss"].backward()
    assert y.grad is not None and y.grad.abs().max() > 0

    rendezvous = open_rendezvous("127.0.0.1")
    join_process_group(0, 1, "127.0.0.1", rendezvous.port)
    distilled, control = trained(losses[0]), trained(Loss(preset="none"))
    torch.distributed.destroy_process_group()
    assert math.isfinite(distilled["latent_l1"]) and distilled["latent_l1"] > 0
    expected = distilled["bpp"] + distilled["distortion"] + 0.1 * distilled["latent_l1"]
    assert math.isclose(distilled["loss"], expected, rel_tol=1e-4)
    assert "latent_l1" not in control
    assert math.isclose(control["loss"], control["bpp"] + control["distortion"], rel_tol=1e-4)


if __name__ == "__main__":
    main()
