"""Training steps with cached targets, beside those of the student alone and those that run the teacher."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.cache.download import LIMIT_BYTES, bring, objects
from benchmarks.common.online import OnlineReader, forward
from benchmarks.common.pairs import in_turn, ratios, spread
from benchmarks.common.process import join_alone
from models.catalogue import build_ladder
from models.weights import load_ladder, read_metadata
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop, Reader
from orchestrator.features.format.key import FeaturePlan
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.reader import Reader as CachedReader
from orchestrator.photographs.crops import CropPlan
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Training
from orchestrator.store.store import Store

WAITED_S = 0.005  # a step that waited longer for its data is counted


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A student and a teacher whose outputs are in the store.

    Attributes:
        N, M, Z: of the student, a variable-rate hyperprior with random weights; Z None: N.
        cold_steps: of a run whose node cache is empty when it starts; 0: there are no such runs.
        warm_steps: of a run whose node cache holds all.
        folder: for node caches.
    """

    store_url: str
    plan: CropPlan
    pixels: FeaturePlan
    features: FeaturePlan
    N: int
    M: int
    Z: int | None = None
    precision: Literal["fp32", "bf16"]
    batch_size: int
    threads: int
    rounds: int
    cold_steps: int
    warm_steps: int
    folder: str


class _Swapped:
    """The reader of a loop that outlives its readers; counts the steps that waited."""

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.waiting_steps = 0

    def batch(self, step: int) -> Batch:
        assert self.reader is not None
        before = getattr(self.reader, "waited_s", 0.0)
        batch = self.reader.batch(step)
        self.waiting_steps += getattr(self.reader, "waited_s", 0.0) - before > WAITED_S
        return batch


class Arm:
    """A student with its own engine, trained run by run, each with a reader of its own.

    The readers of all arms ask for the same crops at the same place of a run.
    """

    def __init__(self, comparison: Comparison, loss: Loss, online: bool) -> None:
        teacher = comparison.features.teacher
        assert teacher is not None
        self._comparison = comparison
        cached = not loss.is_control and not online
        self._plans = (comparison.pixels, comparison.features) if cached else (comparison.pixels,)
        self._teacher = load_ladder(teacher.path) if online else None
        self._swapped = _Swapped()
        torch.manual_seed(0)
        described = read_metadata(teacher.path)
        ladder = build_ladder(
            family="hyperprior",
            N=comparison.N,
            M=comparison.M,
            Z=comparison.Z,
            lambdas=described.lambdas,
            kind="variable-rate",
        )
        self._loop = Loop(
            ladder=ladder,
            training=Training(
                batch_size=comparison.batch_size,
                precision=comparison.precision,
                ranks_per_trial=1,
                threads_per_rank=comparison.threads,
            ),
            reader=self._swapped,
            learning_rate=lambda images: 1e-5,
            distillation=Distillation.of(loss, ladder, described, images=1),
        )

    def run(self, cache: Path, steps: int) -> dict[str, float]:
        """Opens a reader, trains, closes it. `images_per_s` is without the first step, which waits for first shards;
        `images_per_s_with_start` is all from opening on.
        """
        began = time.perf_counter()
        reader = open_reader(self._comparison, self._plans, cache)
        self._swapped.reader = OnlineReader(reader, self._teacher) if self._teacher else reader
        batch_size = self._comparison.batch_size
        self._loop.train_to(self._loop.images_seen + batch_size)
        started, waited, self._swapped.waiting_steps = time.perf_counter(), reader.waited_s, 0
        self._loop.train_to(self._loop.images_seen + (steps - 1) * batch_size)
        ended = time.perf_counter()
        figures = {
            "images_per_s": (steps - 1) * batch_size / (ended - started),
            "step_s": (ended - started) / (steps - 1),
            "images_per_s_with_start": steps * batch_size / (ended - began),
            "start_s": started - began,
            "waited_s": reader.waited_s - waited,
            "waiting_steps": self._swapped.waiting_steps,
            "steps": steps,
        }
        reader.close()
        return figures


def open_reader(comparison: Comparison, plans: tuple[FeaturePlan, ...], cache: Path) -> CachedReader:
    return CachedReader(
        comparison.store_url,
        comparison.plan,
        plans,
        rank=0,
        world=1,
        batch_size=comparison.batch_size,
        seed=0,
        cache=NodeCache(cache, LIMIT_BYTES),
    )


def compare(comparison: Comparison) -> dict[str, Any]:
    """In a process of its own. Arms, all reading their pixels through `Reader` from the same store:

    student_only     the control: pixels alone
    cached           y and x_hat from the store, both losses with a weight
    online           the same losses, the teacher's forward pass in the step
    teacher_forward  that forward pass alone, on batches in memory

    Cold runs start with an empty node cache, warm ones with one that holds all.
    """
    join_alone(comparison.threads)
    say: Callable[[str], None] = _say
    folder, losses = Path(comparison.folder), Loss(latent=0.01, reconstruction=0.1)
    arms = {
        "student_only": Arm(comparison, Loss(preset="none"), online=False),
        "cached": Arm(comparison, losses, online=False),
        "online": Arm(comparison, losses, online=True),
    }
    store, warm = Store(comparison.store_url), folder / "warm"
    bring(store, objects(store, (comparison.pixels, comparison.features)), warm)
    for arm in arms.values():
        arm.run(warm, steps=3)

    def cold_run(arm: Arm) -> dict[str, float]:
        shutil.rmtree(folder / "cold", ignore_errors=True)
        return arm.run(folder / "cold", comparison.cold_steps)

    figures: dict[str, Any] = {"step_waits_if_over_s": WAITED_S}
    if comparison.cold_steps:
        measured = in_turn(
            {name: lambda name=name: cold_run(arms[name]) for name in ("student_only", "cached")},  # type: ignore[misc]
            comparison.rounds,
            say,
        )
        figures["cold"] = {**_over_student_only(measured), "rounds": measured}
    runs: dict[str, Callable[[], dict[str, float]]] = {
        name: lambda arm=arm: arm.run(warm, comparison.warm_steps)  # type: ignore[misc]
        for name, arm in arms.items()
    }
    runs["teacher_forward"] = _forwards(comparison, warm)
    measured = in_turn(runs, comparison.rounds, say)
    ceilings = [
        (arms["student_only"]["step_s"] + arms["teacher_forward"]["step_s"]) / arms["student_only"]["step_s"]
        for arms in measured
    ]
    gains = [arms["cached"]["images_per_s"] / arms["online"]["images_per_s"] for arms in measured]
    figures["warm"] = {
        **_over_student_only(measured),
        "cached_over_online": spread(gains),
        "ceiling": spread(ceilings),
        "cached_over_online_over_ceiling": spread([a / b for a, b in zip(gains, ceilings, strict=True)]),
        "rounds": measured,
    }
    return figures


def _over_student_only(measured: Any) -> dict[str, Any]:
    return {
        "cached_over_student_only": ratios(measured, "cached", "student_only", "images_per_s"),
        "cached_over_student_only_with_start": ratios(measured, "cached", "student_only", "images_per_s_with_start"),
    }


def _forwards(comparison: Comparison, cache: Path) -> Callable[[], dict[str, float]]:
    """The teacher's forward passes alone."""
    assert comparison.features.teacher is not None
    teacher = load_ladder(comparison.features.teacher.path)
    reader = open_reader(comparison, (comparison.pixels,), cache)
    batches = [reader.batch(step) for step in range(comparison.warm_steps)]
    reader.close()

    def run() -> dict[str, float]:
        forward(teacher, batches[0])
        began = time.perf_counter()
        for batch in batches[1:]:
            forward(teacher, batch)
        seconds = time.perf_counter() - began
        steps = len(batches) - 1
        return {"images_per_s": steps * comparison.batch_size / seconds, "step_s": seconds / steps}

    return run


def _say(line: str) -> None:
    print(line, flush=True)
