"""How many crops a photograph a cached plan needs: validation BD-rate of a student after equal images seen.

    python -m benchmarks.cache.crops_per_image --photographs FOLDER [FOLDER ...] --validation FOLDER --student WEIGHTS

Arms, each with several seeds:
    cached-K   a finite plan of K crops a photograph on average, targets from the cache as they are stored
    fresh      every crop is seen once, cut and asked of the teacher (fp32) when it is needed: an endless plan
    exact-K    cached-K's plan with the teacher's exact targets (fp32): what storing costs, beside the seeds' spread

All arms of a seed start with the same weights, visit rate points in the same order and see the same number of images;
cached-K and exact-K see the same crops in the same order. The student learns from the teacher's latent and its
reconstruction. BD-rates are by estimated rates (PSNR in RGB, whole validation crops), against the teacher's curve as in
a sweep, and against the `fresh` arm of the same seed; lower is better.

Each run is a process of one thread. A run that is done is a line of WORK/runs.jsonl: started again, the command makes
what is missing, and writes the result from what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cache.crops_per_image_run import FRESH, Material, Run, Settings, plan_of, train
from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import (
    RESULTS,
    ROOT,
    TRAIN,
    VALIDATION,
    WEIGHTS,
    facts,
    photographs,
    teacher_of,
    write,
)
from benchmarks.common.pairs import spread
from benchmarks.common.process import workers
from models.weights import digest, read_metadata
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.bd_rate import BDRate, bd_rate
from orchestrator.evaluation.metric import METRICS, CurvePoint
from orchestrator.features.format.key import plan_features
from orchestrator.photographs.crops import validation_crops
from orchestrator.results.anchor import AnchorFile
from orchestrator.results.files import read_file, write_file
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import RateLadderSection, Validation
from orchestrator.store.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, began = facts(), time.monotonic()
    material = _material(options)
    runs = _runs(options, len(material.photographs))
    work = Path(options.work)
    done = _done(work, material.settings)
    todo = [run for run in runs if (run.arm, run.seed) not in done]
    _say(f"{len(runs)} runs of {options.images} images, {len(runs) - len(todo)} of them done before")
    anchor = _prepare(material, todo, work)
    with workers(options.processes) as pool:
        waiting = [pool.submit(train, material, run) for run in todo]
        for count, future in enumerate(as_completed(waiting), start=1):
            row = future.result()
            with (work / "runs.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            pct = anchor.score(_last_curve(row)).bd_rate_pct
            shown = "no valid BD-rate" if pct is None else f"BD-rate {pct:+.2f} %"
            took = f"{row['seconds']:.0f} s, {(time.monotonic() - began) / 60:.1f} min in all"
            _say(f"{count}/{len(todo)} {row['arm']} seed {row['seed']}: {shown}, {took}")
    done = _done(work, material.settings)
    rows = [done[run.arm, run.seed] for run in runs]
    described = asdict(material.settings) | {"photographs": len(material.photographs), "plans_per_arm": "one a seed"}
    names = {"teacher_weights": Path(options.teacher).name, "student_weights": Path(options.student).name}
    figures = summary(rows, anchor)
    write(
        options.results,
        "crops_per_image",
        machine,
        {"settings": described | names, **figures, "anchor": asdict(anchor) | {"digest": anchor.digest}},
    )
    for arm, values in figures["arms"].items():
        _say(f"{arm:10} BD-rate against the teacher {_shown(values['bd_rate_pct'])}")
        _say(f"{'':10}          against fresh       {_shown(values['bd_rate_vs_fresh_pct'])}")
    for arm, values in figures["stored_vs_exact_targets_bd_rate_pct"].items():
        _say(f"{arm:10}          against exact       {_shown(values)}")
    return 0


def summary(rows: Sequence[Mapping[str, Any]], anchor: Anchor) -> dict[str, Any]:
    """Per arm the seeds' figures with their median and range; differences are within a seed."""
    arms: dict[str, dict[str, Any]] = {}
    fresh = {row["seed"]: row for row in rows if row["arm"] == FRESH}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        scores = [anchor.score(_last_curve(row)) for row in own]
        arms[arm] = {
            "plan_crops": own[0]["crops"],
            "seeds": [row["seed"] for row in own],
            "bd_rate_pct": spread([score.bd_rate_pct for score in scores]),
            "log_lagrangian_ratio": spread([score.log_lagrangian_ratio for score in scores]),
            "bd_rate_vs_fresh_pct": spread([_against(fresh.get(row["seed"]), row) for row in own]),
        }
    storing = {}
    for arm in arms:
        exact = {row["seed"]: row for row in rows if row["arm"] == arm.replace("cached", "exact")}
        if arm.startswith("cached") and exact:
            own = [row for row in rows if row["arm"] == arm]
            storing[arm] = spread([_against(exact.get(row["seed"]), row) for row in own])
    return {"arms": arms, "stored_vs_exact_targets_bd_rate_pct": storing, "runs": list(rows)}


def _last_curve(row: Mapping[str, Any]) -> list[CurvePoint]:
    return [CurvePoint.from_json(point) for point in row["rungs"][-1]["points"]]


def _against(anchor: Mapping[str, Any] | None, row: Mapping[str, Any]) -> float | None:
    """BD-rate of a run's last curve against another's."""
    if anchor is None:
        return None
    curves = [METRICS["mse"].curve(_last_curve(run)) for run in (anchor, row)]
    result = bd_rate(*curves)
    return result.pct if isinstance(result, BDRate) else None


def _prepare(material: Material, todo: Sequence[Run], work: Path) -> Anchor:
    """The anchor, and everything that cached runs read in the store."""
    import ray

    from orchestrator.features.fill.fill import fill
    from orchestrator.sweep.cluster import connected
    from orchestrator.sweep.front.anchor import TeacherCurve, measure_teacher

    name, folder = f"anchor-{material.settings.key}.json", Store(work)
    student = read_metadata(material.student)
    rates = RateLadderSection(lambdas=student.lambdas, kind=student.kind, distortion=student.distortion)
    cached = [run for run in todo if run.cached]
    saved = read_file(folder, name, AnchorFile)
    if saved is not None and not cached:
        return saved.anchor
    with connected():
        arguments = (material.teacher.name, material.teacher.path, material.validation, rates)
        measured = None if saved is not None else measure_teacher.remote(*arguments)
        for run in cached:
            plan = plan_of(material, run, len(rates.lambdas))
            plans = (plan_features(plan), plan_features(plan, material.teacher))
            fill(Store(material.store), plan, plans, material.photographs, _say)
        if measured is not None:
            curve: TeacherCurve = ray.get(measured)
            costs = {curve.anchor.teacher: curve.cost}
            saved = AnchorFile(anchor=curve.anchor, digest=curve.anchor.digest, mean_log_lagrangian=costs)
            write_file(folder, name, saved)
    assert saved is not None
    return saved.anchor


def _done(work: Path, settings: Settings) -> dict[tuple[str, int], dict[str, Any]]:
    """Runs of these settings that are on disk."""
    file = work / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {(row["arm"], row["seed"]): row for row in rows if row["settings"] == settings.key}


def _runs(options: argparse.Namespace, count: int) -> list[Run]:
    """Seed by seed, the slowest arms first."""
    arms = [(FRESH, options.images, False)]
    arms += [(f"exact-{crops}", crops * count, False) for crops in options.exact]
    arms += [(f"cached-{crops}", crops * count, True) for crops in sorted(options.crops_per_image, reverse=True)]
    return [
        Run(arm=arm, seed=seed, crops=crops, cached=cached)
        for seed in range(options.seeds)
        for arm, crops, cached in arms
    ]


def _material(options: argparse.Namespace) -> Material:
    size = options.validation_size
    held_out = photographs([options.validation], size)
    boxes = validation_crops(held_out, Validation(crops=options.validation_crops, size=size))
    held_out_digests = {photograph.digest for photograph in held_out}
    chosen = photographs(options.photographs, options.crop_size, held_out_digests)[: options.count]
    if len(chosen) < options.count:
        raise SystemExit(f"--count {options.count}: only {len(chosen)} fit photographs in {options.photographs}")
    teacher = teacher_of(options.teacher)
    settings = Settings(
        photographs=tuple(photograph.digest for photograph in chosen),
        validation=tuple(photograph.digest for photograph, _ in boxes),
        validation_size=size,
        teacher=teacher.digest,
        student=digest(options.student),
        crop_size=options.crop_size,
        images=options.images,
        rungs=options.rungs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        latent=options.latent,
        reconstruction=options.reconstruction,
        precision=options.precision,
    )
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    return Material(
        settings=settings,
        photographs=chosen,
        validation=boxes,
        teacher=teacher,
        student=options.student,
        store=str(work / "store"),
    )


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--count", type=count, default=16, help="photographs that are trained on")
    add("--validation", default=VALIDATION, metavar="FOLDER")
    add("--validation-crops", type=count, default=6)
    add("--validation-size", type=count, default=256)
    add("--crops-per-image", type=count, nargs="+", default=[4, 16, 64])
    add("--exact", type=int, nargs="*", default=[16], help="plans that are also trained on with exact targets")
    add("--seeds", type=count, default=3)
    add("--images", type=count, default=10_000, help="seen by each run")
    add("--rungs", type=count, default=4, help="validations a run")
    add("--crop-size", type=count, default=128)
    add("--batch-size", type=count, default=8)
    add("--learning-rate", type=float, default=5e-4)
    add("--latent", type=float, default=0.01, help="loss weight")
    add("--reconstruction", type=float, default=0.1, help="loss weight")
    add("--precision", choices=("fp32", "bf16"), default="bf16")
    add("--teacher", default=str(WEIGHTS / "teacher-hyperprior.safetensors"))
    add("--student", required=True, help="first weights of students: jobs/specs/student-hyperprior.yaml makes some")
    add("--processes", type=count, default=2, help="runs at a time, of one thread each")
    add("--work", default=str(ROOT / "runs" / "crops_per_image"), help="folder for the store and finished runs")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


def _shown(values: Mapping[str, Any]) -> str:
    if values["median"] is None:
        return "no valid curve"
    return f"{values['median']:+6.2f} % ({values['min']:+.2f} to {values['max']:+.2f})"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
