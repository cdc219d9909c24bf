"""What a method gains over controls: of a study's students, by student and method, over seeds.

At equal images: points of BD-rate on the test set. At equal wall time: 100 times the difference of ln J on the
validation photographs after the seconds that the control took in all; the method's is taken between its rungs. Filling
the cache and refitting count.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.whole.study import CONTROL, Row
from orchestrator.report.distillation import value_after

RANDOM, SLICE, REFITTED = (f"{CONTROL}, {start}" for start in ("random start", "slice", "refitted"))
CONTROLS = (RANDOM, SLICE, REFITTED)


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """Over seeds.

    Attributes:
        mean, least, most: of the seeds that have a figure; None: a seed has none.
        seeds: that were asked.
    """

    mean: float | None
    least: float | None
    most: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> OverSeeds:
        """Of some values; one that is None makes the mean None."""
        known = [value for value in values if value is not None]
        whole = bool(known) and len(known) == len(values)
        return cls(
            mean=statistics.fmean(known) if whole else None,
            least=min(known, default=None),
            most=max(known, default=None),
            seeds=len(values),
        )

    @property
    def certain(self) -> bool:
        """Every seed says the same of the sign, and the mean is larger than what the seeds differ by."""
        if self.mean is None or self.least is None or self.most is None or self.seeds < 2:
            return False
        return self.least * self.most > 0 and abs(self.mean) > self.most - self.least

    @property
    def shown(self) -> str:
        """As a table has it."""
        if self.mean is None or self.least is None or self.most is None:
            return "none" if self.seeds else ""
        if self.seeds == 1:
            return f"{self.mean:+.1f}"
        return f"{self.mean:+.1f} ({self.least:+.1f} to {self.most:+.1f})"


def of_student(rows: Sequence[Row], student: str, arm: str) -> dict[int, Row]:
    """Seed -> the student that an arm trained."""
    return {row["seed"]: row for row in rows if (row["complexity_class"], row["arm"]) == (student, arm)}


def bd_rate(rows: Sequence[Row], student: str, arm: str) -> OverSeeds:
    """Against the teacher, in percent."""
    return OverSeeds.of([row["bd_rate_pct"] for row in of_student(rows, student, arm).values()])


def at_equal_images(rows: Sequence[Row], student: str, arm: str, control: str) -> OverSeeds:
    """Points of BD-rate by which the arm is better."""
    ours, theirs = of_student(rows, student, arm), of_student(rows, student, control)
    return OverSeeds.of(
        [_difference(theirs[seed]["bd_rate_pct"], ours[seed]["bd_rate_pct"]) for seed in ours if seed in theirs]
    )


def at_equal_time(rows: Sequence[Row], student: str, arm: str, control: str) -> OverSeeds:
    """100 times the difference of ln J by which the arm is better."""
    ours, theirs = of_student(rows, student, arm), of_student(rows, student, control)
    return OverSeeds.of([_at_equal_time(ours[seed], theirs[seed]) for seed in ours if seed in theirs])


def _at_equal_time(ours: Row, theirs: Row) -> float | None:
    reached = value_after(theirs["seconds"][-1], ours["seconds"], _log_ratios(ours))
    return None if reached is None else 100 * (_log_ratios(theirs)[-1] - reached)


def _log_ratios(row: Row) -> list[float]:
    return [rung["log_lagrangian_ratio"] for rung in row["validation"]]


def _difference(control: float | None, ours: float | None) -> float | None:
    return None if control is None or ours is None else control - ours
