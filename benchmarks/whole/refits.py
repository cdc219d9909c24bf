"""What a refitted start is before any training: seconds, the layers' errors, and the cost J against the teacher's.

    python -m benchmarks.whole.refits [--photographs FOLDER] [--validation FOLDER] [--crops 64]

For the shipped teachers, each student width and each criterion, beside a slice of the teacher and random weights. J is
that of training, bpp + lambda * distortion, on validation crops with estimated rates; the figure is the mean over the
rate points of ln(J of the student / J of the teacher). The student has the teacher's M and Z, and so its whole entropy
part.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, VALIDATION, WEIGHTS, facts, photographs, write
from models.ladder import RateLadder
from models.weights import load_ladder, slice_from
from orchestrator.distill.refit.refit import refit
from orchestrator.distill.refit.stored import crops_of, loaded
from orchestrator.evaluation.bd_rate import log_lagrangian_ratio
from orchestrator.evaluation.metric import METRICS
from orchestrator.evaluation.rate_distortion import curve, estimate
from orchestrator.photographs.crops import minimum_side, plan_crops, validation_crops
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Criterion, Crops, Refit, Validation
from orchestrator.sweep.front.anchor import pictures

TEACHERS = ("hyperprior", "mean-scale")
CRITERIA: tuple[Criterion, ...] = ("activation", "sensitivity", "redundancy")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--validation", nargs="+", default=[VALIDATION], metavar="FOLDER")
    add("--validation-crops", type=count, default=6)
    add("--widths", type=count, nargs="+", default=[16, 24, 32, 48])
    add("--crops", type=count, default=Refit().crops, help="of 128x128, that the layers are fitted to")
    add("--downscale", type=float, nargs=2, default=[1.0, 1.0], metavar=("LOW", "HIGH"), help="of the photographs")
    add("--threads", type=count, default=1)
    add("--results", default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    machine = facts()
    cut = Crops(count=1024, downscale=tuple(options.downscale))
    chosen = photographs(options.photographs, minimum_side(cut))
    plan = plan_crops(chosen, cut, 5, seed=0)
    by_digest = {photograph.digest: photograph for photograph in chosen}
    fitted = loaded(crops_of(plan, Refit(crops=options.crops)), by_digest)
    boxes = validation_crops(photographs(options.validation, 256), Validation(crops=options.validation_crops, size=256))
    seen = pictures(boxes)
    rows = []
    for name in TEACHERS:
        teacher = load_ladder(WEIGHTS / f"teacher-{name}.safetensors")
        of_teacher = costs(teacher, seen)
        for width in options.widths:
            for start in ("random", "teacher-slice", *CRITERIA):
                student = like(teacher, width)
                row: dict[str, Any] = {"teacher": name, "N": width, "start": start, "seconds": None, "errors": {}}
                if start == "teacher-slice":
                    slice_from(student, teacher)
                if start in CRITERIA:
                    began = time.monotonic()
                    report = refit(student, teacher, fitted, Refit(criterion=start, crops=options.crops))
                    row["seconds"] = time.monotonic() - began
                    row["errors"] = {layer.path: layer.relative_error for layer in report.layers}
                row["log_cost_ratio"] = log_lagrangian_ratio(of_teacher, costs(student, seen), teacher.lambdas)
                rows.append(row)
                took = "" if row["seconds"] is None else f", {row['seconds']:.1f} s"
                print(f"{name} N={width} {start}: ln J ratio {row['log_cost_ratio']:+.3f}{took}", flush=True)
    settings = {name: getattr(options, name) for name in ("crops", "downscale", "threads", "validation_crops")}
    write(options.results, "refits", machine, {"settings": settings, "starts": rows, "goals": goals(rows)})
    return 0


def goals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | str]]:
    """The default start of the hyperprior at half the width, against that of the first prototype (a criterion like
    `activation`)."""
    wanted = {"teacher": "hyperprior", "N": 32, "start": Refit().criterion}
    found = [row["log_cost_ratio"] for row in rows if wanted.items() <= row.items()]
    return {"log_cost_ratio_n32": {"value": found[0], "goal": 0.42, "at": "most"}} if found else {}


def like(teacher: RateLadder, N: int) -> RateLadder:
    """A narrower ladder of a teacher's form, with random weights."""
    torch.manual_seed(0)
    form = {name: getattr(teacher, name) for name in ("family", "M", "Z", "lambdas", "kind", "distortion")}
    return RateLadder(N=N, **form)


def costs(ladder: RateLadder, seen: Sequence[tuple[str, Any]]) -> list[tuple[float, float]]:
    """(bpp, distortion) at each rate point."""
    points = curve(estimate(ladder, seen, range(len(ladder.lambdas))))
    return [METRICS[ladder.distortion].cost(point) for point in points]


if __name__ == "__main__":
    sys.exit(exit_code(main))
