"""What a sweep's gangs do between and beside training steps: figures of whole sweeps, each in a process of its own.

    python -m benchmarks.whole.turnaround --work FOLDER [--parts turnaround share sides memory] [--set FIELD=VALUE ...]

Sweeps are `jobs/sweep_feds.py` on variations of a specification, by default the quickstart's, without early stopping.
All parts read one feature store, which the first of them fills.

    turnaround  seconds from the last training step of a trial to the first of the next, without the validation between
                them, one gang of 2 ranks (goal: median at most 1); beside Ray Train nested in Tune, see nested.py, on
                the same first trials
    share       of the time of the phase `trials`, what trained: one gang of 2 ranks, the largest student, two segments
                a trial of about --segment-s each (goal: at least 0.9 at 60)
    sides       one gang of 2 ranks against two of 1 rank on the same trials, in alternating order
    memory      resident memory of each process of one gang after each of 100 trials or more, see flat.py

A part that is not run keeps the figures that turnaround.json has. Before `share` and `sides` a short sweep measures
the pace of each student. Each part has the machine's facts of its own start.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, write
from benchmarks.common.pairs import in_turn, ratios, spread
from benchmarks.whole import flat
from benchmarks.whole.sweeps import Bench, running, say
from orchestrator.results.account import Account
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import by_size, trials
from orchestrator.trials.record import Rung
from testing.tree import CpuTime

RATIOS = ("turnaround_median_s", "turnaround_max_s", "wall_s", "cpu_s")
Row = Mapping[str, Any]


def turnaround(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    spec = bench.varied("ours", options.trials, [options.images])
    ran = bench.sweep("ours", spec)
    ours = [timed(record.trial_id, record.rungs[0]) for record in ran.records]
    say(f"nested: the first {options.nested_trials} of them")
    folder = bench.folder("nested", spec)
    command = ["-m", "benchmarks.whole.nested", "--spec", str(folder / "spec.yaml"), "--folder", str(folder)]
    command += ["--trials", str(options.nested_trials)]
    with running(command, folder) as process, CpuTime(process.pid).sampled() as cpu:
        process.wait()
    nested: list[dict[str, Any]] = []
    for trial in trials(spec)[: options.nested_trials]:
        (row,) = json.loads((folder / "times" / f"{trial.trial_id}.json").read_text())["segments"]
        nested.append({"trial_id": trial.trial_id, **row})
    for row, gap_s in zip(nested, turnarounds(nested), strict=True):
        row["turnaround_s"] = gap_s
    by_side = {
        "ours": {"phase_s": ran.trials_s, **figures(ours, ran.cpu)},
        "nested": {"phase_s": json.loads((folder / "phase.json").read_text())["trials_s"], **figures(nested, cpu)},
    }
    same = figures(ours[: len(nested)], ran.cpu)
    over = {name: by_side["nested"][name] / same[name] for name in RATIOS}
    for name, its in by_side.items():
        say(
            f"turnaround, {name}: median {its['turnaround_median_s']:.2f} s, max {its['turnaround_max_s']:.2f} s, "
            f"wall {its['wall_s']:.0f} s, CPU {its['cpu_s']:.0f} s, {its['trials']} trials"
        )
    say("turnaround, nested over ours: " + ", ".join(f"{name} {value:.2f}" for name, value in over.items()))
    return {**by_side, "nested_over_ours_same_trials": over, "rows": {"ours": ours, "nested": nested}}


def timed(trial_id: str, rung: Rung) -> dict[str, Any]:
    """A segment of ours as nested.py writes one; its moments follow from the end, which is milliseconds late."""
    trained_at = rung.ended_at - rung.saving_s - rung.validation_s
    its = {name: getattr(rung, name) for name in ("training_s", "validation_s", "saving_s", "turnaround_s", "ended_at")}
    return {"trial_id": trial_id, "first_step_at": trained_at - rung.training_s, "trained_at": trained_at, **its}


def turnarounds(rows: Sequence[Row]) -> list[float | None]:
    """Of trials of one segment, one after the other: as `SweepTrial` defines it; None for the first."""
    return [
        None,
        *(late["first_step_at"] - early["trained_at"] - early["validation_s"] for early, late in pairwise(rows)),
    ]


def figures(rows: Sequence[Row], cpu: CpuTime) -> dict[str, Any]:
    """Wall and CPU time are from the first training step to the end of the last trial: no first start is in them."""
    begin, end = rows[0]["first_step_at"], rows[-1]["ended_at"]
    gaps = [row["turnaround_s"] for row in rows if row["turnaround_s"] is not None]
    return {
        "trials": len(rows),
        "turnaround_median_s": median(gaps),
        "turnaround_max_s": max(gaps),
        "wall_s": end - begin,
        "cpu_s": cpu.between(begin, end),
        "training_s": sum(row["training_s"] for row in rows),
    }


def share(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    student = by_size(bench.spec)[-1]
    images = bench.images(options.segment_s, [student])
    changes: dict[str, Any] = {"students": (student.model_dump(),)}
    ran = bench.sweep("share", bench.varied("share", options.share_trials, [images, 2 * images], **changes))
    segments = [rung.training_s for record in ran.records for rung in record.rungs]
    found = shares(ran.account, sum(ran.starts_s))
    say(f"share: {found['training']:.3f} trains, without the first start {found['training_without_start']:.3f}")
    return {"student": f"{student.family} N={student.N}", "segment_images": images, "shares": found} | {
        "segment_s": spread(segments),
        "account": ran.account.model_dump(mode="json"),
    }


def shares(account: Account, start_s: float) -> dict[str, float]:
    """Of one gang's phase `trials`, by kind of time; start_s: the gang's start, a part of `startup_s`."""
    wall, gangs = account.phases_s["trials"], account.gangs
    parts = {name.removesuffix("_s"): seconds / wall for name, seconds in gangs}
    return parts | {"training_without_start": gangs.training_s / (wall - start_s), "gang_start": start_s / wall}


def sides(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    images = bench.images(options.sides_s, by_size(bench.spec))

    def arm(ranks: int, gangs: int) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            name, training = f"sides-{gangs}x{ranks}", {"ranks_per_trial": ranks}
            changes: dict[str, Any] = {"training": training, "concurrent_trials": gangs}
            ran = bench.sweep(name, bench.varied(name, options.sides_trials, [images], **changes))
            total = images * len(ran.records)
            return {
                "images_per_s": total / ran.trials_s,
                "images_per_s_without_start": total / (ran.trials_s - max(ran.starts_s)),
                "wall_s": ran.trials_s,
                "training_s": ran.account.gangs.training_s,
                "idle_s": ran.account.gangs.idle_s,
            }

        return run

    rounds = in_turn({"1x2": arm(2, 1), "2x1": arm(1, 2)}, options.pairs, say)
    names = ("images_per_s", "images_per_s_without_start")
    over = {name: ratios(rounds, "2x1", "1x2", name) for name in names}
    say(f"sides: two gangs of one rank over one gang of two, images/s: {over['images_per_s']['median']:.3f}")
    return {"trials": options.sides_trials, "images": images, "2x1_over_1x2": over, "rounds": rounds}


def memory(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    batch_size, count = bench.spec.training.batch_size, options.memory_trials
    spec = flat.of_many(bench.varied("memory", 1, [2 * batch_size, 4 * batch_size]), count)
    ran = bench.sweep("memory", spec, flat.watch)
    processes = flat.summary(ran.watched)
    for name, its in processes.items():
        say(f"memory, {name}: {its['at_mb']}, {its['slope_mb_per_trial']} MB a trial")
    return {"trials": len(ran.records), "gang_starts": len(ran.starts_s), "processes": processes, "rows": ran.watched}


PARTS = {"turnaround": turnaround, "share": share, "sides": sides, "memory": memory}


def main(argv: Sequence[str] | None = None) -> int:
    parser = _options()
    options = parser.parse_args(argv)
    if not 2 <= options.nested_trials <= options.trials:
        parser.error(f"--nested-trials: {options.nested_trials} is not allowed: 2 to --trials, {options.trials}")
    work = Path(options.work).absolute()
    places = [f"store={work / 'store'}", f"node_cache.folder={work / 'node'}"]
    spec: Spec = load_spec(options.spec, [*options.set, *places]).resolved(ROOT)
    bench, path = Bench(spec, work), Path(options.results) / "turnaround.json"
    for name in options.parts:
        machine, began = facts(), time.monotonic()
        measured = PARTS[name](bench, options)
        result = {"machine": machine, "settings": _settings(options), "seconds": time.monotonic() - began, **measured}
        before = json.loads(path.read_text()) if path.is_file() else {}
        parts = {part: before[part] for part in PARTS if part in before} | {name: result}
        write(options.results, "turnaround", machine, parts)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    kept = {name: value for name, value in vars(options).items() if name not in ("work", "results", "parts")}
    return kept | {"spec": Path(options.spec).name}


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", required=True, metavar="FOLDER", help="the feature store and the sweeps' folders")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--spec", default=str(ROOT / "jobs" / "specs" / "quickstart.yaml"), help="with several students and teachers")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of it")
    add("--trials", type=count, default=20, help="turnaround: of ours")
    add("--nested-trials", type=count, default=20, help="turnaround: of Ray Train's, which may be fewer")
    add("--images", type=count, default=160, help="turnaround: of a trial")
    add("--share-trials", type=count, default=3)
    add("--segment-s", type=float, default=60.0, help="share: training of a segment")
    add("--sides-trials", type=count, default=8)
    add("--sides-s", type=float, default=20.0, help="sides: training of a trial on two ranks")
    add("--pairs", type=count, default=2, help="sides")
    add("--memory-trials", type=count, default=100, help="memory: at least")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
