"""Training curves that are the same on every processor: `python -m tests.distill.golden` writes golden.json, which
test_golden.py holds new curves against.

The whole chain is in them: crop plan, the teacher's outputs through the feature store, the phases, the loss terms,
noise and rounding, both optimizers. Whoever changes the mathematics on purpose writes the file anew and says why.

Processors sum in different orders. In float32 that moves a value by 1e-7; of the million values that the curves
round, one then falls to the other side, and everything after that step differs by 1e-4. So teacher and student
compute in float64 here, by the code that computes in float32 elsewhere. Sums then differ by 1e-16, and a value that
falls to the other side is a matter of one in millions of runs. test_golden_sees.py changes the mathematics in many
ways and shows that the curves see each of them.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch
from torch import Tensor

from models.catalogue import build_ladder
from models.families import Kind
from models.weights import digest, read_metadata, save_ladder
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.engine_plain import PlainEngine
from orchestrator.distill.loop import Loop, Reader, cosine
from orchestrator.distill.targets import entropy_tap, taps
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.features.read.reader import Reader as StoreReader
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.survey import survey
from orchestrator.spec.loss import Loss, LossWeights, Phase, Preset, TeacherRatePoints
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Training
from orchestrator.store.store import Store
from tests.distill.ranks import ROOT, in_ranks

FILE = Path(__file__).parent / "golden.json"
BATCH, RATE_POINTS, DIGITS = 4, len(PRIM_LAMBDAS), 12
TOLERANCE = 1e-10  # relative; measured between processors: 1e-14, and the file's digits are 5e-12

Curve = list[dict[str, float]]  # the mean of each term over the steps of a segment


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained.

    Attributes:
        ends: the last step of each segment, of which the curve has a row. The first is short: a test of a change needs
            no more.
        training: beside batch size, ranks, ZeRO stage and learning rate.
        stage_one: steps in stage 1.
        kind: of the student.
        validates: whether the curve ends with a row of `Loop.validate`.
    """

    loss: Loss
    ends: tuple[int, ...] = (4, *range(20, 201, 20))
    training: Mapping[str, Any] = field(default_factory=dict)
    stage_one: int = 0
    kind: Kind = "variable-rate"
    validates: bool = False

    @property
    def images(self) -> int:
        return self.ends[-1] * BATCH


# What no preset has: a term, a factor of the learning rate, frozen parts, rate points of the teacher, averages.
_REST = Loss(
    phases=(
        Phase(share=0.3, weights=LossWeights(latent_kl=0.1, hyper_latent=0.1)),
        Phase(share=0.4, weights=LossWeights(spatial_attention=0.1), learning_rate=0.5, freeze=("h_a",)),
        Phase(share=0.3, weights=LossWeights(latent=0.1)),
    ),
    teacher_rate_point=TeacherRatePoints(latent_kl=4, spatial_attention=2, latent=0),
    stages=("synthesis-8",),
)
RUNS: Mapping[str, Run] = {
    **{preset: Run(loss=Loss(preset=preset)) for preset in get_args(Preset) if "inherit" not in preset},
    # the start is not of the curve; the phases are not those of the preset, which learns the teacher's image
    "inherit": Run(
        loss=Loss(
            phases=(Phase(share=0.5, apart=True, weights=LossWeights(latent=0.3)), Phase(share=0.5)),
            widths="top-entropy",
        )
    ),
    # averages of each network, and steps of different networks between which moments have to wait
    "fixed-lambda": Run(
        loss=Loss(preset="prim-l1"), ends=(4, 20, 40), training={"ema": 0.5}, kind="fixed-lambda", validates=True
    ),
    "rest": Run(
        loss=_REST,
        ends=(4, 12, 28, 40),
        training={"ema": 0.5, "micro_batch_size": 2, "clip_norm": 0.3},
        stage_one=6,
        validates=True,
    ),
}


def curves() -> dict[str, Curve]:
    """The curves of all runs, trained in a process of one thread."""
    (trained,) = in_ranks(1, _curves)
    return dict(trained)


def _curves(rank: int, world: int) -> dict[str, Curve]:
    with chain() as trains:
        return {name: trains.curve(run) for name, run in RUNS.items()}


@contextmanager
def chain() -> Iterator[Chain]:
    """A `Chain` in a temporary folder, all of it in float64. It sets torch's default type: for a process of its own."""
    torch.set_default_dtype(torch.float64)
    # In the loss, the teacher and DeepSpeed's norm of the gradients, `float` asks for what is enough elsewhere.
    wide = patch.object(torch.Tensor, "float", torch.Tensor.double)
    # The curves are of the time when DeepSpeed reduced gradients, in float32, also for a rank by itself.
    reduced = patch.object(PlainEngine, "_gradients", _in_float32(PlainEngine._gradients))
    with tempfile.TemporaryDirectory() as folder, wide, reduced:
        yield Chain(Path(folder))


def _in_float32(gradients: Callable[[PlainEngine], list[Tensor]]) -> Callable[[PlainEngine], list[Tensor]]:
    return lambda engine: [gradient.copy_(gradient.to(torch.float32)) for gradient in gradients(engine)]


class InFloat64:
    """A reader's batches, whose float32 values are exact in float64."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def batch(self, step: int) -> Batch:
        batch = self._reader.batch(step)
        targets = {tap: target.double() for tap, target in batch.targets.items()}
        return replace(batch, x=batch.x.double(), targets=targets)


class Chain:
    """The whole chain from the shipped photographs to a training curve.

    Args:
        folder: for the feature store and a teacher with random weights.
    """

    def __init__(self, folder: Path) -> None:
        self._photographs = survey(ROOT / "data" / "quickstart" / "train", minimum_side=128).photographs
        crops = Crops(count=64, size=64, downscale=(0.7, 1.0))
        self._plan = plan_crops(self._photographs, crops, RATE_POINTS, seed=0)
        self._store = Store(folder / "store")
        self._fill(plan_features(self._plan))
        path = ROOT / "models" / "weights" / "teacher-hyperprior.safetensors"
        self._variable = TeacherWeights(name="shipped", path=str(path), digest=digest(path))
        # The hybrid's two teachers and those between: one network a lambda.
        path = folder / "fixed.safetensors"
        torch.manual_seed(1)
        save_ladder(path, build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="fixed-lambda"))
        self._fixed = TeacherWeights(name="fixed", path=str(path), digest=digest(path), kind="fixed-lambda")
        # All at once: what is there already is not computed again for each run.
        losses = [(run.loss, "hyperprior") for run in RUNS.values() if run.loss.preset != "prim-hybrid"]
        wanted = taps(losses, teacher="hyperprior", rate_points=RATE_POINTS)
        self._fill(plan_features(self._plan, self._variable, wanted))

    def curve(self, run: Run, steps: int | None = None) -> Curve:
        """Trains a run from the start: all of it, or its first steps."""
        loss, teacher = run.loss, self._fixed if run.loss.preset == "prim-hybrid" else self._variable
        torch.manual_seed(0)
        student = build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind=run.kind)
        plans, bits = self._targets(loss, teacher)
        reader = StoreReader(self._store.url, self._plan, plans, rank=0, world=1, batch_size=BATCH, seed=0)
        loop = Loop(
            ladder=student,
            training=Training(batch_size=BATCH, ranks_per_trial=1, zero_stage=0, learning_rate=1e-3, **run.training),
            reader=InFloat64(reader),
            learning_rate=cosine(1e-3, run.images),
            distillation=Distillation.of(loss, student, read_metadata(teacher.path), run.images, bits),
            stage_one_images=run.stage_one * BATCH,
        )
        ends = [end for end in run.ends if end <= (steps or run.ends[-1])]
        rows = [_terms(loop.train_to(end * BATCH)) for end in ends]
        if run.validates and steps is None:
            rows.append(_validated(loop, InFloat64(reader).batch(0).x))
        reader.close()
        loop.close()
        return rows

    def _targets(
        self, loss: Loss, teacher: TeacherWeights
    ) -> tuple[list[FeaturePlan], tuple[tuple[float, ...], ...] | None]:
        """The feature plans that a loss reads, filled in, and the bits of the teacher's channels."""
        wanted = taps([(loss, "hyperprior")], teacher=teacher.family, rate_points=RATE_POINTS)
        plans, entropy = [plan_features(self._plan)], entropy_tap(loss, RATE_POINTS)
        if wanted:
            plans.append(plan_features(self._plan, teacher, wanted))
            self._fill(plans[1])
        if entropy is None:
            return plans, None
        rate_points = [self._plan.crops[shard[0]].rate_point for shard in self._plan.shards]
        return plans, channel_bits(self._store, plans[1], entropy, rate_points)

    def _fill(self, features: FeaturePlan) -> None:
        by_digest = {photograph.digest: photograph for photograph in self._photographs}
        works = [ShardWork.of(self._plan, features, index, by_digest) for index in range(len(features.shards))]
        filled = [fill_shard(self._store, work) for work in works]
        entries = {index: shard.entries for index, shard in enumerate(filled) if shard is not None}
        publish_ledger(self._store, features, entries)


def _terms(segment: dict[str, float]) -> dict[str, float]:
    """The mean terms of a segment, without its times and counts."""
    return {k: value for k, value in segment.items() if k not in ("first_step_at", "seconds", "skipped_steps")}


def _validated(loop: Loop, x: torch.Tensor) -> dict[str, float]:
    """Rate and distortion of crops [B, 3, S, S] at all rate points, as one row."""
    points = loop.validate(list(x), rank=0, world=1)
    return {f"{name}@{point.rate_point}": getattr(point, name) for point in points for name in ("bpp", "mse")}


def deviations(curve: Curve, expected: Curve) -> Iterator[tuple[float, int, str]]:
    """Relative deviation, row and name of each term. `expected` may have more rows."""
    for index, (row, of) in enumerate(zip(curve, expected, strict=False)):
        for name in row.keys() | of.keys():
            both = name in row and name in of
            yield abs(row[name] / of[name] - 1) if both else math.inf, index, name


def rounded(trained: Mapping[str, Curve]) -> dict[str, Curve]:
    """A curve rounded as in golden.json."""
    return {
        name: [{term: float(f"{value:.{DIGITS}g}") for term, value in row.items()} for row in rows]
        for name, rows in trained.items()
    }


if __name__ == "__main__":
    Parser(description="Writes golden.json anew.").parse_args()
    FILE.write_text(json.dumps(rounded(curves()), indent=1) + "\n")
    print(FILE)
