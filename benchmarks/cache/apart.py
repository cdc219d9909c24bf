"""What a step of modules apart costs, beside a step without a teacher and steps of joint distillation.

    python -m benchmarks.cache.apart [--photographs FOLDER ...] [--size 128] [--precision bf16]

Hyperprior students of the shipped teacher's M and Z, one rank, targets from a filled store on the local disk, and
only those taps that the loss reads:

    plain      rate and distortion alone, from pixels
    apart      modules apart: y and the quantised y; no entropy model, no auxiliary step
    joint      y and x_hat beside rate and distortion, as `prim-l1`
    attention  maps and channel statistics of three layers beside rate and distortion, as the first phase of `feds`

The goal is that a step apart is cheaper than a plain one. Ratios of a round, in alternating order; bytes are those of
the stored objects that the loss reads, pixels included, a crop.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cache.steps import Arm, Comparison
from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, WEIGHTS, facts, photographs, teacher_of, write
from benchmarks.common.pairs import MINIMUM, in_turn, ratios, spread
from benchmarks.common.process import join_alone, workers
from models.weights import read_metadata
from orchestrator.distill.targets import taps
from orchestrator.features.format.key import FeaturePlan, plan_features
from orchestrator.features.format.ledger import read_ledger
from orchestrator.photographs.crops import plan_crops
from orchestrator.spec.loss import Loss, LossWeights, Phase
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

LOSSES = {
    "plain": Loss(preset="none"),
    "apart": Loss(phases=(Phase(apart=True, weights=LossWeights(latent=0.3)),)),
    "joint": Loss(preset="prim-l1"),
    "attention": Loss(spatial_attention=0.1, channel_attention=0.1),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = _options()
    options = parser.parse_args(argv)
    if options.steps < 2:
        parser.error(f"--steps: {options.steps} is not allowed: at least 2, as the first one is not timed")
    machine = facts()
    teacher = teacher_of(options.teacher)
    described = read_metadata(teacher.path)
    chosen = photographs(options.photographs, options.size)
    plan = plan_crops(chosen, Crops(count=options.crops, size=options.size), len(described.lambdas), seed=0)
    pixels = plan_features(plan)
    of_loss: dict[str, FeaturePlan] = {}
    for name, loss in LOSSES.items():
        read = taps([(loss, "hyperprior")], teacher=teacher.family, rate_points=len(described.lambdas))
        of_loss[name] = plan_features(plan, teacher, read) if read else pixels
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-apart-", dir=options.work) as folder, workers(1) as pool:
        store = Store(f"{folder}/store")
        from orchestrator.features.fill.fill import fill
        from orchestrator.sweep.cluster import connected

        with connected():
            fill(store, plan, [pixels, *of_loss.values()], chosen, _say)
        stored = {name: bytes_a_crop(store, {pixels, features}) for name, features in of_loss.items()}
        for width in options.widths:
            comparison = Comparison(
                store_url=store.url,
                plan=plan,
                pixels=pixels,
                features=of_loss["joint"],
                N=width,
                M=described.M,
                Z=described.Z,
                precision=options.precision,
                batch_size=options.batch_size,
                threads=options.threads,
                rounds=options.rounds,
                cold_steps=0,
                warm_steps=options.steps,
                folder=folder,
            )
            _say(f"N={width}")
            measured[f"N={width}"] = pool.submit(compare, comparison, of_loss).result()
    goals = {
        f"apart_over_plain_{student}": {"value": figures["apart_over_plain"]["median"], "goal": 1.0, "at": "most"}
        for student, figures in measured.items()
    }
    settings = {
        name: getattr(options, name)
        for name in ("crops", "size", "batch_size", "precision", "threads", "rounds", "steps", "widths")
    }
    write(
        options.results,
        "apart",
        machine,
        {"settings": settings, "bytes_a_crop": stored, "steps": measured, "goals": goals},
    )
    return 0


def compare(comparison: Comparison, of_loss: dict[str, FeaturePlan]) -> dict[str, Any]:
    """In a process of its own: seconds a step of each loss, and its ratio to a plain step.

    Args:
        comparison: a student.
        of_loss: what each of `LOSSES` reads.
    """
    join_alone(comparison.threads)
    arms = {
        name: Arm(
            replace(comparison, features=of_loss[name]) if not loss.is_control else comparison, loss, online=False
        )
        for name, loss in LOSSES.items()
    }
    cache = Path(comparison.folder) / "node"
    for arm in arms.values():
        arm.run(cache, steps=3)
    measured = in_turn(
        {name: lambda arm=arm: arm.run(cache, comparison.warm_steps) for name, arm in arms.items()},  # type: ignore[misc]
        comparison.rounds,
        _say,
    )
    over_plain = {f"{name}_over_plain": ratios(measured, name, "plain", "step_s") for name in LOSSES if name != "plain"}
    return {**over_plain, "step_s": {name: spread([arms[name]["step_s"] for arms in measured]) for name in LOSSES}}


def bytes_a_crop(store: Store, plans: set[FeaturePlan]) -> float:
    """Of the objects of some filled plans."""
    ledgers = [read_ledger(store, features) for features in plans]
    crops = sum(map(len, next(iter(plans)).shards))
    return sum(entry.bytes for ledger in ledgers if ledger for entries in ledger.values() for entry in entries) / crops


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--teacher", default=str(WEIGHTS / "teacher-hyperprior.safetensors"))
    add("--widths", type=count, nargs="+", default=[16, 32, 48])
    add("--crops", type=count, default=320)
    add("--size", type=count, default=128)
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="of the students; the teacher computes in fp32")
    add("--batch-size", type=count, default=8)
    add("--threads", type=count, default=len(os.sched_getaffinity(0)))
    add("--rounds", type=count, default=MINIMUM)
    add("--steps", type=count, default=30, help="a run")
    add("--work", default=None, metavar="FOLDER", help="for the store; default: the system's")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
