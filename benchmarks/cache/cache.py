"""What the feature cache costs and brings, against a real S3 server (SeaweedFS) on loopback that this starts.

    python -m benchmarks.cache.cache [--quick] [--photographs FOLDER ...] [--precision bf16]

Variable-rate hyperprior students (N 64 and 16, random weights) train on 256x256 crops, one rank with all cores, beside
a light teacher (N=64, M=96: the shipped one) and a heavy one (N=192, M=192: random weights, as time does not depend on
them). Students have their teacher's M, so that latents compare. Figures, with the goals that they are held to:

    cached_over_student_only         0.95  images/s with the teacher's y and x_hat from the cache over the control's;
                                           cold: the node's cache is empty at first, and S3 is read while it trains
    cached_over_online_over_ceiling  0.90  images/s over those with the teacher in the step, as a share of what a free
                                           cache would bring: (t_student + t_teacher_forward) / t_student
    fill_over_teacher_forward        0.90  crops/s of a fill over those of bare forward passes in as many threads
    read_over_boto3                  0.80  MB/s onto the node, checked and on disk, over those of boto3's get_object

Every ratio is of figures taken in turn in this run, in alternating order; its median, minimum and maximum are over
rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cache.download import read_rate
from benchmarks.cache.fill_rate import fill_rate
from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, WEIGHTS, facts, photographs, teacher_of, write
from benchmarks.common.pairs import MINIMUM
from benchmarks.common.process import workers
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

LIGHT, HEAVY = "light teacher (N=64, M=96)", "heavy teacher (N=192, M=192)"
GOALS = {
    "cached_over_student_only": 0.95,
    "cached_over_online_over_ceiling": 0.9,
    "fill_over_teacher_forward": 0.9,
    "read_over_boto3": 0.8,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    crop: int  # pixels a side
    crops: int  # of the plan; a cold run reads each once
    warm_steps: int
    heavy_steps: int  # of a warm run beside the heavy teacher
    fill_crops: int  # a CPU
    heavy_fill_crops: int
    rounds: int
    widths: tuple[int, ...] = (64, 16)


FULL = Size(crop=256, crops=120, warm_steps=9, heavy_steps=5, fill_crops=1024, heavy_fill_crops=32, rounds=MINIMUM)
QUICK = Size(crop=64, crops=80, warm_steps=3, heavy_steps=3, fill_crops=16, heavy_fill_crops=8, rounds=1, widths=(16,))


def main(argv: Sequence[str] | None = None) -> int:
    from orchestrator.sweep.cluster import connected
    from testing.servers import SeaweedFS

    options = _options().parse_args(argv)
    machine, began, size = facts(), time.monotonic(), QUICK if options.quick else FULL
    chosen = photographs(options.photographs, size.crop)
    _say(f"{len(chosen)} photographs, {size.crop}x{size.crop} crops")
    with tempfile.TemporaryDirectory(prefix="bench-cache-", dir=options.work) as name, workers(1) as pool:
        folder = Path(name)
        with SeaweedFS(folder / "server") as server:
            os.environ |= server.environment
            teachers = {LIGHT: teacher_of(options.teacher), HEAVY: _heavy(folder, pool)}
            store = Store(f"s3://{server.bucket}/cache")
            plan = plan_crops(chosen, Crops(count=size.crops, size=size.crop), 5, seed=0)
            plans = {title: plan_features(plan, teacher) for title, teacher in teachers.items()}
            pixels = plan_features(plan)
            with connected():
                from orchestrator.features.fill.fill import fill

                fill(store, plan, [pixels, *plans.values()], chosen, _say)
                rates = {}
                for title, teacher in teachers.items():
                    _say(f"fill, {title}")
                    rates[title] = fill_rate(
                        Store(f"s3://{server.bucket}") / teacher.digest[:8],
                        teacher,
                        chosen,
                        shard_crops=size.heavy_fill_crops if title == HEAVY else size.fill_crops,
                        size=size.crop,
                        rounds=size.rounds,
                        server=server.pid,
                        say=_say,
                    )
            _say("download")
            read = read_rate(
                store, [pixels, *plans.values()], server.client(read_timeout=60), folder / "node", size.rounds, _say
            )
            training = _training(options, size, store, plan, pixels, plans, folder, pool)
    settings = {
        "photographs": len(chosen),
        "crop_size": size.crop,
        "plan_crops": size.crops,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "threads": machine["cores"],
        "rounds": size.rounds,
        "quick": options.quick,
        "seconds": time.monotonic() - began,
    }
    figures = {"training": training, "fill": rates, "read": read}
    reached = goals(figures)
    write(options.results, "cache", machine, {"settings": settings, **figures, "goals": reached})
    for where, each in reached.items():
        _say(f"{each['value']:.3f}, goal {each['goal']}: {where}")
    return 0


def _training(
    options: argparse.Namespace,
    size: Size,
    store: Store,
    plan: CropPlan,
    pixels: FeaturePlan,
    plans: dict[str, FeaturePlan],
    folder: Path,
    pool: ProcessPoolExecutor,
) -> dict[str, Any]:
    from benchmarks.cache.steps import Comparison, compare

    compared: dict[str, Any] = {}
    for title, features in plans.items():
        for width in size.widths:
            name = f"student N={width}, {title}"
            _say(name)
            comparison = Comparison(
                store_url=store.url,
                plan=plan,
                pixels=pixels,
                features=features,
                N=width,
                M=192 if title == HEAVY else 96,
                precision=options.precision,
                batch_size=options.batch_size,
                threads=len(os.sched_getaffinity(0)),
                rounds=size.rounds,
                cold_steps=size.crops // options.batch_size,
                warm_steps=size.warm_steps,
                folder=str(folder / f"nodes-{len(compared)}"),
            )
            if title == HEAVY:
                comparison = replace(comparison, cold_steps=0, warm_steps=size.heavy_steps)
            compared[name] = pool.submit(compare, comparison).result()
    return compared


def _heavy(folder: Path, pool: ProcessPoolExecutor) -> TeacherWeights:
    path = folder / "heavy.safetensors"
    pool.submit(save_random, str(path), 192, 192).result()
    return teacher_of(path)


def save_random(path: str, N: int, M: int) -> None:
    """A variable-rate hyperprior with random weights."""
    import torch

    from models.catalogue import build_ladder
    from models.weights import save_ladder
    from orchestrator.spec.sections import PRIM_LAMBDAS

    torch.manual_seed(0)
    save_ladder(path, build_ladder(family="hyperprior", N=N, M=M, lambdas=PRIM_LAMBDAS, kind="variable-rate"))


def goals(figures: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Medians beside their goals, wherever in the figures one of that name is."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in figures.items():
        if name in GOALS:
            found[", ".join((*path, name))] = {"value": value["median"], "goal": GOALS[name], "at": "least"}
        elif isinstance(value, dict):
            found |= goals(value, (*path, name))
    return found


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--teacher", default=str(WEIGHTS / "teacher-hyperprior.safetensors"), help="the light one")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the students; teachers compute in fp32")
    add("--batch-size", type=count, default=8)
    add("--quick", action="store_true", help="a smoke run of a minute, whose figures say nothing")
    add("--work", default=None, metavar="FOLDER", help="for the server's data and node caches; default: the system's")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
