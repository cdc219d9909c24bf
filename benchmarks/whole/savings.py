"""What a study's sweeps cost, and what they would have cost otherwise (pure): from its result file alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.stopping.hypervolume import Point, hypervolume, reference
from benchmarks.whole.study import Row, images_of, is_control, loss_of
from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.simulate import Curve, Listed, SimulatedSweep, simulate

SLOTS, REDUCTION = 2, 3


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What a rule would have left of a sweep in which nothing was stopped, as shares of it.

    Attributes:
        images: trained.
        seconds: from the first trial's start to the last one's end.
        hypervolume: of BD-rate and MACs, validation.
        best_kept: of each student size the best trial would have been trained to its end.
    """

    images: float
    seconds: float
    hypervolume: float
    best_kept: bool


def stopped_early(rows: Sequence[Row], rule: StoppingRule = "stratified") -> Stopped | None:
    """The rule's decisions over the recorded rungs of one seed's trials, in their order; None: none has a BD-rate."""
    rungs = [rung["images_seen"] for rung in rows[0]["validation"]]
    curves = [_curve(row) for row in sorted(rows, key=lambda row: str(row["trial_id"]))]
    points = _points((curve.bd_rate_pct[-1], curve.macs_per_pixel) for curve in curves)
    if not points:
        return None

    def by(rule: StoppingRule) -> SimulatedSweep:
        return simulate(
            Listed(curves), lambda curve: curve, RungRule(rule=rule, rungs=rungs, reduction=REDUCTION), SLOTS
        )

    whole, outcome, worst = by("none"), by(rule), reference(points)
    ended = {trial.trial_id for trial in outcome.ended if trial.rungs == len(rungs)}
    left = _points((curve.bd_rate_pct[-1], curve.macs_per_pixel) for curve in curves if curve.trial_id in ended)
    return Stopped(
        images=outcome.images / whole.images,
        seconds=outcome.seconds / whole.seconds,
        hypervolume=hypervolume(left, worst) / hypervolume(points, worst),
        best_kept={_best(curves, name) for name in {curve.complexity_class for curve in curves}} <= ended,
    )


def images_with_teacher(row: Row) -> float:
    """Images of a trial at which its loss reads the teacher's features."""
    if is_control(row):
        return 0.0
    return images_of(row) * math.fsum(phase.share for phase in loss_of(row["arm"]).schedule if phase.reads_teacher)


def teacher_in_the_loop(sweep: Mapping[str, Any], crops: int, images: float) -> float | None:
    """Seconds of training with the teacher in the steps that read it, over those with cache and fill.

    None: the sweep found features of an earlier one in its cache, so it has not measured what the teacher takes.

    Args:
        sweep: an account.
        crops: that were asked of the teacher once; the fill took this sweep's phase `features`.
        images: at which trials read the teacher.
    """
    if not sweep["bytes"]["features_stored"]:
        return None
    fill, training = SLOTS * sweep["phases_s"]["features"], sweep["gangs"]["training_s"]  # of all cores
    return float((training + images * fill / crops) / (training + fill))


def _curve(row: Row) -> Curve:
    rungs = row["validation"]
    return Curve(
        trial_id=row["trial_id"],
        complexity_class=row["complexity_class"],
        macs_per_pixel=row["macs_per_pixel"],
        bd_rate_pct=tuple(rung["bd_rate_pct"] for rung in rungs),
        log_lagrangian_ratio=tuple(rung["log_lagrangian_ratio"] for rung in rungs),
        seconds=tuple(rung["training_s"] + rung["validation_s"] for rung in rungs),
    )


def _best(curves: Sequence[Curve], complexity_class: str) -> str:
    own = [curve for curve in curves if curve.complexity_class == complexity_class]
    return min(own, key=lambda curve: curve.log_lagrangian_ratio[-1]).trial_id


def _points(pairs: Iterable[tuple[float | None, float]]) -> list[Point]:
    return [(rate, macs) for rate, macs in pairs if rate is not None]
