"""What a shelf costs and gives: halves that are trained by themselves and paired, beside every pair trained as a whole.

    python -m benchmarks.whole.shelf --work FOLDER [--train FOLDER --validation FOLDER] [--set FIELD=VALUE ...]

Two sweeps of jobs/specs/shelf.yaml's networks on the same crops: the shelf itself, and its grid, in which each pair of
an encoder and a decoder is a student of its own, trained by `--grid-loss` on `--grid-images`. The grid is made once for
all shelves of the same networks, crops and photographs; `--set name=...` tells shelves apart. Fronts are of
BD-rate and MACs per pixel at estimated rates; the teacher's own halves are left out, since the grid has none. The
reference of a hypervolume is the worst of the grid's front, a tenth worse. Images of a half count in full, although it
trains one transform; the share of the multiply-accumulates that were trained through is given beside it. The rules that
stop early are simulated over the grid's recorded rungs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, TRAIN, VALIDATION, facts, write
from benchmarks.stopping.hypervolume import Point, hypervolume, reference
from orchestrator.evaluation.front import fronts
from orchestrator.results.account import ACCOUNT, Account
from orchestrator.results.files import needed
from orchestrator.results.shelf import SHELF, Pair, ShelfFile
from orchestrator.spec.load import dump, load_spec
from orchestrator.spec.messages import Parser
from orchestrator.spec.networks import with_halves, with_inherited
from orchestrator.spec.sections import Shelf, StoppingRule
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.pairs import pair_students
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.simulate import Curve, Listed, simulate
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord

GOAL_HYPERVOLUME, GOAL_IMAGES = 0.98, 0.15


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, began, work = facts(), time.monotonic(), Path(options.work).absolute()
    overrides = [f"photographs.train={options.train}", f"photographs.validation={options.validation}"]
    overrides += [f"store={work / 'store'}", f"results={work / 'runs'}", *options.set]
    spec: Spec = load_spec(options.spec, overrides).resolved(ROOT)
    grid = grid_of(spec, options.grid_loss, options.grid_images)
    for wanted in (spec, grid):
        file = work / f"{wanted.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dump(wanted))
        subprocess.run([sys.executable, "jobs/sweep_feds.py", "--spec", str(file)], cwd=ROOT, check=True)
    figures = {
        "settings": {"grid_loss": options.grid_loss, "grid_images": options.grid_images, **_settings(spec)},
        **compared(work / "runs" / spec.name, work / "runs" / grid.name, options.slots),
        "seconds_of_this_call": time.monotonic() - began,
    }
    write(options.results, spec.name, machine, figures)
    return 0


def grid_of(spec: Spec, loss: str, rungs: Sequence[int]) -> Spec:
    """The specification in which each pair is a student of its own, without controls, and nothing is stopped.

    Args:
        spec: of the shelf.
        loss: a preset.
        rungs: of the grid; the last one is how many images each pair is trained on.
    """
    written_out = with_inherited(with_halves(spec))
    data: dict[str, Any] = yaml.safe_load(dump(spec))
    students = [student.model_dump(mode="json") for student in pair_students(written_out)]
    data |= {"encoders": [], "decoders": [], "students": students, "trials": len(students), "controls": False}
    data |= {"name": "shelf-grid", "losses": [{"preset": loss}], "candidates": 1}
    data["early_stopping"] |= {"rule": "none", "rungs": list(rungs)}
    data["shelf"] = Shelf().model_dump(mode="json")
    return Spec.model_validate_json(json.dumps(data))


def compared(shelf_run: Path, grid_run: Path, slots: int) -> dict[str, Any]:
    """The figures of two finished sweeps.

    Args:
        shelf_run, grid_run: their run folders.
        slots: trials side by side, of what is simulated.
    """
    shelf, records = needed(Store(shelf_run), SHELF, ShelfFile), read_trials(Store(shelf_run))
    grid = read_trials(Store(grid_run))
    halves, joined = [record for record in records if not record.pair], [record for record in records if record.pair]
    pairs = [pair for pair in shelf.pairs if pair.of_trained_halves]
    by_grid = points_of(grid)
    worst = reference([point for point, number in zip(by_grid, fronts(by_grid), strict=True) if number == 0])
    whole = hypervolume(by_grid, worst)
    of_pairs = [(pair.bd_rate_pct, pair.macs_per_pixel) for pair in pairs if pair.bd_rate_pct is not None]
    images = {"grid": _images(grid), "halves": _images(halves), "joined": _images(joined)}
    macs = {"grid": _work(grid), "halves": _work(halves), "joined": _work(joined)}
    share = hypervolume([*of_pairs, *points_of(joined)], worst) / whole
    spent = (images["halves"] + images["joined"]) / images["grid"]
    return {
        "hypervolume_share": {
            "pairs": hypervolume(of_pairs, worst) / whole,
            "pairs_and_joined": share,
            "joined": hypervolume(points_of(joined), worst) / whole,
        },
        "images": images,
        "trained_macs": macs,
        "images_share": spent,
        "trained_macs_share": (macs["halves"] + macs["joined"]) / macs["grid"],
        "seconds": {name: _seconds(folder) for name, folder in (("shelf", shelf_run), ("grid", grid_run))},
        "early_stopping_of_the_grid": {
            name: stopped(grid, name, worst, whole, slots) for name in get_args(StoppingRule) if name != "none"
        },
        "additivity": additivity(pairs),
        "pairs": [pair.model_dump(mode="json", exclude={"points"}) for pair in shelf.pairs],
        "grid": [_row(record) for record in grid],
        "joined": [_row(record) for record in joined],
        "goals": {
            "hypervolume_share": {"value": share, "goal": GOAL_HYPERVOLUME, "at": "least"},
            "images_share": {"value": spent, "goal": GOAL_IMAGES, "at": "most"},
        },
    }


def points_of(records: Sequence[TrialRecord]) -> list[Point]:
    """BD-rate and MACs of the trials with a valid curve at their last rung."""
    last = [(record.rungs[-1].bd_rate_pct, record.macs_per_pixel) for record in records if record.rungs]
    return [(rate, macs) for rate, macs in last if rate is not None]


def additivity(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How far the sum of halves was from the scores, in points of BD-rate."""
    errors = [error for pair in pairs if (error := pair.prediction_error) is not None]
    if not errors:
        return {"pairs": 0}
    return {
        "pairs": len(errors),
        "mean_absolute_points": statistics.fmean(map(abs, errors)),
        "mean_points": statistics.fmean(errors),
        "worst_points": max(errors, key=abs),
    }


def stopped(
    grid: Sequence[TrialRecord], name: StoppingRule, worst: Point, whole: float, slots: int
) -> dict[str, float]:
    """What a rule that stops early would have left of the grid."""
    curves = [
        Curve(
            trial_id=record.trial_id,
            complexity_class=record.complexity_class,
            macs_per_pixel=record.macs_per_pixel,
            bd_rate_pct=tuple(rung.bd_rate_pct for rung in record.rungs),
            log_lagrangian_ratio=tuple(rung.log_lagrangian_ratio for rung in record.rungs),
            seconds=tuple(rung.training_s + rung.validation_s for rung in record.rungs),
        )
        for record in grid
    ]
    rungs = [rung.images_seen for rung in grid[0].rungs]
    rule = RungRule(rule=name, rungs=rungs, reduction=3)
    outcome = simulate(Listed(curves), lambda curve: curve, rule, slots)
    left = [(trial.bd_rate_pct, trial.macs_per_pixel) for trial in outcome.ended if trial.bd_rate_pct is not None]
    return {"hypervolume_share": hypervolume(left, worst) / whole, "images_share": outcome.images / _images(grid)}


def _images(records: Sequence[TrialRecord]) -> int:
    return sum(record.images_seen for record in records)


def _work(records: Sequence[TrialRecord]) -> float:
    """Images times the MACs per pixel of the transforms that were trained: one of them in a half, both in a pair."""
    cost = {None: "macs_per_pixel", "encoder": "encoder_macs_per_pixel", "decoder": "decoder_macs_per_pixel"}
    return sum(record.images_seen * float(getattr(record, cost[record.student.half])) for record in records)


def _seconds(run: Path) -> dict[str, float]:
    account = needed(Store(run), ACCOUNT, Account)
    return {"wall": account.wall_s, **account.phases_s}


def _row(record: TrialRecord) -> dict[str, Any]:
    student = record.student
    return {
        "encoder_N": student.encoder_N or student.N,
        "decoder_N": student.N,
        "macs_per_pixel": record.macs_per_pixel,
        "bd_rate_pct": [rung.bd_rate_pct for rung in record.rungs],
        "images": [rung.images_seen for rung in record.rungs],
    }


def _settings(spec: Spec) -> dict[str, Any]:
    named = ("encoders", "decoders", "shelf", "losses", "crops", "validation", "training", "early_stopping")
    data = spec.model_dump(mode="json")
    return {name: data[name] for name in named}


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--spec", default=str(ROOT / "jobs" / "specs" / "shelf.yaml"))
    add("--train", default=TRAIN, metavar="FOLDER")
    add("--validation", default=VALIDATION, metavar="FOLDER")
    add("--work", required=True, metavar="FOLDER", help="stores and runs; keep it to go on later")
    add("--grid-loss", default="inherit-plain", metavar="PRESET", help="that whole pairs are trained by")
    add("--grid-images", type=count, nargs="+", default=[720, 2160], metavar="IMAGES", help="the grid's rungs")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the specification; name=X writes X.json")
    add("--slots", type=count, default=2)
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
