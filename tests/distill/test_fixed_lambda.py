"""A step of a fixed-lambda ladder trains the network of its rate point, and leaves all others exactly as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from orchestrator.distill.engine import Engine
from tests.distill.ranks import engine, in_worlds, train, untrained

pytestmark = pytest.mark.slow  # trains in processes of ranks

STAGES = (0, 1, 2, 3)
RATE_POINT, RATE_POINTS, STEPS = 1, 5, 12
Weights = dict[str, torch.Tensor]


def weights(trained: Engine) -> dict[str, Weights]:
    """Network -> its weights and quantiles."""
    of: dict[str, Weights] = {}
    with trained.whole():
        for name, value in trained.ladder.named_parameters():
            of.setdefault(name.split(".")[1], {})[name] = value.detach().clone()
    return of


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def after(steps: list[int], rank: int, world: int, zero_stage: int) -> tuple[Any, Any, Any]:
    """Weights before and after these steps, and the averages after them."""
    ema: dict[str, Any] = {} if zero_stage == 3 else {"ema": 0.9}
    ladder = untrained(42 if zero_stage == 3 else 8, kind="fixed-lambda")  # ZeRO 3 parts the layers of 42 channels
    trained = engine(world, ladder=ladder, zero_stage=zero_stage, clip_norm=0.1, **ema)
    before = weights(trained)
    for step in steps:
        train(trained, range(step, step + 1), rank, world)
    last = weights(trained)
    with trained.averaged():
        averages = weights(trained)
    trained.close()
    return before, last, averages


def others_do_not_matter(rank: int, world: int, zero_stage: int) -> dict[str, bool]:
    """Compares a run over all rate points with one that leaves all steps out but those of one rate point.

    What a step of another rate point had moved of this one's network (weights, moments, averages, quantiles) would
    show in the weights at the end.
    """
    before, last, averages = after([*range(STEPS)], rank, world, zero_stage)
    _, alone, averages_alone = after([*range(RATE_POINT, STEPS, RATE_POINTS)], rank, world, zero_stage)
    own, others = str(RATE_POINT), {str(index) for index in range(RATE_POINTS)} - {str(RATE_POINT)}
    return {
        "weights": same(last[own], alone[own]),
        "averages": same(averages[own], averages_alone[own]),
        "moved": not any(torch.equal(value, before[own][name]) for name, value in last[own].items()),
        "all moved": not any(same(last[network], before[network]) for network in before),
        "others": all(same(alone[network], before[network]) for network in others),
    }


def everything(rank: int, world: int) -> dict[int, dict[str, bool]]:
    return {stage: others_do_not_matter(rank, world, stage) for stage in STAGES}


@pytest.fixture(scope="module")
def observed() -> dict[int, list[dict[int, dict[str, bool]]]]:
    return in_worlds((1, 2), everything)


@pytest.mark.parametrize("zero_stage", STAGES)
@pytest.mark.parametrize("world", [1, 2])
def test_a_step_leaves_the_networks_that_it_did_not_use_as_they_are(observed, world: int, zero_stage: int) -> None:
    expected = dict.fromkeys(("weights", "averages", "moved", "all moved", "others"), True)
    for of_rank in observed[world]:
        assert of_rank[zero_stage] == expected
