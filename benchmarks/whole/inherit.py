"""What inheriting a teacher's latent space is worth: `study` with jobs/specs/inherit.yaml, and its goals.

python -m benchmarks.whole.inherit --train FOLDER --validation FOLDER --test KODAK_FOLDER --work FOLDER
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from benchmarks.common.command import exit_code
from benchmarks.whole import study
from orchestrator.report.distillation import value_after

HALF = "hyperprior-n32-m96-z64"  # half the teacher's width, which the goals are for
SLICE, REFITTED = f"{study.CONTROL}, slice", f"{study.CONTROL}, refitted"


def main(argv: Sequence[str] | None = None) -> int:
    return study.main(argv, "inherit.yaml", goals)


def goals(rows: Sequence[study.Row]) -> study.Goals:
    """Of `inherit` at half the width: means over the seeds of points of BD-rate, or of 100 ln of the ratio of costs J.

    A figure is null where a curve has no BD-rate, or a trial is missing.
    """
    ours = {row["seed"]: row for row in rows if (row["complexity_class"], row["arm"]) == (HALF, "inherit")}

    def control(arm: str) -> dict[int, study.Row]:
        found = {row["seed"]: row for row in rows if (row["complexity_class"], row["arm"]) == (HALF, arm)}
        return {seed: row for seed, row in found.items() if seed in ours}

    def better_than(arm: str) -> float | None:
        return _mean([_difference(row["bd_rate_pct"], ours[seed]["bd_rate_pct"]) for seed, row in control(arm).items()])

    at_equal_time = []
    for seed, row in control(SLICE).items():
        reached = value_after(row["seconds"][-1], ours[seed]["seconds"], _log_ratios(ours[seed]))
        at_equal_time.append(None if reached is None else 100 * (_log_ratios(row)[-1] - reached))
    return {
        "inherit_n32_bd_rate_pct": _goal(_mean([row["bd_rate_pct"] for row in ours.values()]), 9.0, "most"),
        "better_than_slice_points": _goal(better_than(SLICE), 20.0, "least"),
        "better_than_slice_at_equal_time_100_ln_cost": _goal(_mean(at_equal_time), 0.0, "least"),
        "better_than_refitted_points": _goal(better_than(REFITTED), 2.0, "least"),
    }


def _goal(value: float | None, goal: float, at: str) -> dict[str, float | str | None]:
    return {"value": value, "goal": goal, "at": at}


def _log_ratios(row: study.Row) -> list[float]:
    return [rung["log_lagrangian_ratio"] for rung in row["validation"]]


def _difference(control: float | None, ours: float | None) -> float | None:
    return None if control is None or ours is None else control - ours


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


if __name__ == "__main__":
    sys.exit(exit_code(main))
