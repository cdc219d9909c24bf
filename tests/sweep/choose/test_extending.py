"""The early-stopping rule of docs/extending.md works as it stands there, and stops whom the text says."""

from __future__ import annotations

from typing import get_args

import pytest

from benchmarks.stopping.recorded import Recorded, load
from orchestrator.spec import sections
from orchestrator.sweep.choose import rungs as module
from orchestrator.sweep.choose.rungs import RULES, Report, RungRule
from orchestrator.sweep.choose.simulate import Curve, Listed, simulate
from testing.examples import examples

RUNGS = (160, 480, 1440)


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the documented rule, registered while a test runs."""
    code = examples("An early-stopping rule")
    names = dict(vars(module))
    for place in ("with the imports", "above Rule"):
        exec(code[f"orchestrator/sweep/choose/rungs.py, {place}"], names)
    ((name, row),) = eval(f"{{{code['orchestrator/sweep/choose/rungs.py, at the end of RULES']}}}", names).items()
    monkeypatch.setitem(RULES, name, row)
    exec(code["orchestrator/spec/sections.py, in place of StoppingRule"], stopping := dict(vars(sections)))
    assert get_args(stopping["StoppingRule"])[-1] == name  # the rules before it may be more than the page knows
    return name


def curve(number: int, trial: Recorded) -> Curve:
    """What was recorded of a trial at `RUNGS`."""
    at = [trial.images_seen.index(images) for images in RUNGS]
    return Curve(
        trial_id=f"{number:02}",
        complexity_class=trial.complexity_class,
        macs_per_pixel=trial.macs_per_pixel,
        bd_rate_pct=tuple(trial.bd_rate_pct[rung] for rung in at),
        log_lagrangian_ratio=tuple(trial.log_lagrangian_ratio[rung] for rung in at),
        seconds=(1.0,) * len(at),
    )


def dominated(report: Report, others: list[Report]) -> bool:
    """Whether another trial is no worse in value and cost, and better in one of them; by definition, pair by pair."""
    rates = all(peer.bd_rate_pct is not None for peer in (*others, report))

    def point(peer: Report) -> tuple[float, float]:
        value = peer.bd_rate_pct if rates else peer.log_lagrangian_ratio
        assert value is not None
        return value, peer.macs_per_pixel

    mine = point(report)
    return any(point(peer) != mine and all(a <= b for a, b in zip(point(peer), mine, strict=True)) for peer in others)


@pytest.mark.parametrize("slots", [1, 4])
def test_the_documented_rule_stops_whom_it_says(front: str, slots: int) -> None:
    curves = [curve(number, trial) for number, trial in enumerate(load()) if trial.seed == 0]
    rule = RungRule(rule=front, rungs=RUNGS, reduction=3)
    outcome = simulate(Listed(curves), lambda curve: curve, rule, slots)
    before: dict[int, list[Report]] = {images: [] for images in RUNGS}
    for report, decision in outcome.decisions:
        others = before[report.images_seen]
        wanted = "stop" if dominated(report, others) else "continue"
        assert decision.action == ("end" if report.images_seen == RUNGS[-1] else wanted), report
        others.append(report)
    reached = [trial.rungs for trial in outcome.ended]
    assert len(reached) == len(curves) == 16 and 1 in reached and len(RUNGS) in reached
