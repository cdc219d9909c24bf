"""What a step computes stays on its device: every family, kind, loss and phase on a GPU that is not there.

Fake tensors have a device and no data. An operator that is given tensors of two devices raises, and so does one that
would read a value, for which the host would have to wait. Backward needs a real GPU; without one it is done with meta
tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.catalogue import build_ladder
from models.families import FAMILIES, Kind
from models.weights import WeightsDescription
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.learner import Learner
from orchestrator.distill.losses import distillation_terms
from orchestrator.distill.noise import CropNoise
from orchestrator.spec.loss import Loss, LossWeights, Phase, Preset
from orchestrator.spec.sections import PRIM_LAMBDAS
from orchestrator.spec.terms import TERMS

CROPS, SIDE, N, M = 2, 64, 8, 20
RATE_POINT = 2
LOSSES = {preset: Loss(preset=preset) for preset in get_args(Preset)} | {
    "all terms": Loss(phases=(Phase(weights=LossWeights(**dict.fromkeys(TERMS, 0.1))),))
}


def distinct() -> Iterator[tuple[str, Loss, Phase]]:
    """Each phase of each loss, but those that compute what one before does."""
    seen = set()
    for name, loss in LOSSES.items():
        for index, phase in enumerate(loss.schedule):
            key = (frozenset(phase.weights.of_teacher), phase.apart, phase.frozen, loss.widths, loss.stages)
            if key not in seen:
                seen.add(key)
                yield f"{name}, phase {index}", loss, phase


def described(family: str) -> WeightsDescription:
    """A teacher that is wider than its student."""
    return WeightsDescription(
        family=family,
        N=2 * N,
        M=2 * M,
        Z=2 * N,
        encoder_N=2 * N,
        lambdas=PRIM_LAMBDAS,
        kind="variable-rate",
        distortion="mse",
        notes={},
    )


def teachers_shape(tap: str, own: torch.Tensor) -> tuple[int, ...]:
    """Of a target, from the student's tensor that it is compared with."""
    return (CROPS, 2 * M, *own.shape[2:]) if tap.partition("@")[0] in ("y", "y_hat") else tuple(own.shape)


def moved(module: Any, device: str) -> Any:
    """`module.to(device)`, which does not swap fake tensors that a list of parameters holds too."""
    for own in module.modules():
        for name, parameter in list(own.named_parameters(recurse=False)):
            own._parameters[name] = torch.nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in list(own.named_buffers(recurse=False)):
            own._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return module


def computed(learner: Learner, distillation: Distillation, phase: Phase, device: str) -> dict[str, torch.Tensor]:
    """The terms of a step, as `Loop` computes them."""
    x = torch.empty(CROPS, 3, SIDE, SIDE, device=device)
    compared, parts = distillation.compared(phase), distillation.parts(phase)
    taps = tuple({pair.student for pair in compared})
    latent = torch.empty(CROPS, M, SIDE // 16, SIDE // 16, device=device)
    output: Any = learner(x, RATE_POINT, 2, taps, parts, latent)
    chosen = None if distillation.chosen is None else distillation.chosen.to(device)
    targets = {}
    for pair in compared:
        own = output[pair.student]
        target = torch.empty(teachers_shape(pair.teacher, own), device=device)
        of_chosen = chosen is not None and pair.student == "y"
        targets[pair.teacher] = target[:, chosen] if of_chosen else target[:, : own.shape[1]]
    weights = distillation.channel_weights(RATE_POINT)
    return distillation_terms(
        output,
        x,
        targets,
        lmbda=PRIM_LAMBDAS[RATE_POINT],
        gain=learner.ladder.gains[RATE_POINT],
        teacher_gains={pair.term: distillation.gain(pair.term, RATE_POINT) for pair in compared},
        weights=phase.weights,
        pairs=compared,
        channel_weights=None if weights is None else weights.to(device),
    )


@pytest.mark.slow  # seconds for each family
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_stays_on_its_device(family: str, kind: Kind) -> None:
    bits = tuple(tuple(float(channel + 1) for channel in range(2 * M)) for _ in PRIM_LAMBDAS)
    real = torch.cuda.is_available()
    places: list[tuple[str, AbstractContextManager[Any], bool]] = [
        ("cuda", FakeTensorMode(allow_non_fake_inputs=True), real),
        *(() if real else [("meta", nullcontext(), True)]),
    ]
    for device, mode, backward in places:
        with mode:
            ladder = moved(build_ladder(family=family, N=N, M=M, lambdas=PRIM_LAMBDAS, kind=kind), device)
            for name, loss, phase in distinct():
                distillation = Distillation.of(loss, ladder, described(family), 1, bits)
                widths = distillation.widths if distillation.chosen is None else {}
                learner = moved(Learner(ladder, widths), device).train()
                CropNoise(ladder, seed=0).begin(range(CROPS), 0)
                terms = computed(learner, distillation, phase, device)
                assert {value.device.type for value in terms.values()} == {device}, name
                if backward:
                    terms["loss"].backward()
            aux = ladder.aux_loss(ladder.network_of(RATE_POINT))
            assert aux.device.type == device
            if backward:
                aux.backward()
                assert all(p.grad is None or p.grad.device.type == device for p in ladder.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gain_between_the_rate_points_stays_on_its_device(family: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        built = build_ladder(family=family, N=N, M=M, lambdas=PRIM_LAMBDAS, kind="variable-rate")
        ladder = moved(built, "cuda").eval()
        output = ladder(torch.empty(CROPS, 3, SIDE, SIDE, device="cuda"), 0.37)
        assert output["x_hat"].device.type == "cuda"
