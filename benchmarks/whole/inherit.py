"""What inheriting a teacher's latent space is worth: `study` with jobs/specs/inherit.yaml, and its goals.

python -m benchmarks.whole.inherit --train FOLDER --validation FOLDER --test KODAK_FOLDER --work FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.common.command import exit_code
from benchmarks.whole import gains, study

HALF = "hyperprior-n32-m96-z64"  # half the teacher's width, which the goals are for
SLICE, REFITTED = gains.SLICE, gains.REFITTED


def main(argv: Sequence[str] | None = None) -> int:
    return study.main(argv, "inherit.yaml", goals)


def goals(rows: Sequence[study.Row]) -> study.Goals:
    """Of `inherit` at half the width: means over the seeds of points of BD-rate, or of 100 ln of the ratio of costs J.

    A figure is null where a curve has no BD-rate, or a trial is missing.
    """
    at_equal_time = gains.at_equal_time(rows, HALF, "inherit", SLICE)
    slice_, refitted = (gains.at_equal_images(rows, HALF, "inherit", control) for control in (SLICE, REFITTED))
    return {
        "inherit_n32_bd_rate_pct": study.goal(gains.bd_rate(rows, HALF, "inherit").mean, 9.0, "most"),
        "better_than_slice_points": study.goal(slice_.mean, 20.0, "least"),
        "better_than_slice_at_equal_time_100_ln_cost": study.goal(at_equal_time.mean, 0.0, "least"),
        "better_than_refitted_points": study.goal(refitted.mean, 2.0, "least"),
    }


if __name__ == "__main__":
    sys.exit(exit_code(main))
