"""Two hundred steps of every preset on the shipped photographs, term by term: `python -m tests.distill.golden` writes
golden.json, which test_golden.py holds a new run against.

The whole chain is in it: crop plan, the teacher's outputs through the feature store, the phases, the loss terms, the
noise, both optimizers. Whoever changes the mathematics on purpose writes the file anew and says why.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch

from models.catalogue import build_ladder
from models.weights import digest, read_metadata, save_ladder
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop, cosine
from orchestrator.distill.targets import entropy_tap, taps
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.photographs.photos import Photograph, survey
from orchestrator.spec.loss import Loss, Preset
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Training
from orchestrator.store.store import Store
from tests.distill.ranks import ROOT, in_ranks

FILE = Path(__file__).parent / "golden.json"
PRESETS: tuple[Preset, ...] = get_args(Preset)
STEPS, EVERY, BATCH, RATE_POINTS = 200, 20, 4, len(PRIM_LAMBDAS)

Curves = dict[str, list[dict[str, float]]]  # preset -> the mean of each term over every 20 steps


def curves() -> Curves:
    """Trains, in a process of one thread."""
    (found,) = in_ranks(1, _curves)
    return dict(found)


def _curves(rank: int, world: int) -> Curves:
    photographs = survey(ROOT / "data" / "quickstart" / "train", minimum_side=128).photographs
    plan = plan_crops(photographs, Crops(count=64, size=64, downscale=(0.7, 1.0)), RATE_POINTS, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variable, fixed = _shipped(), _networks(folder / "fixed.safetensors")
        store = Store(folder / "store")
        _fill(store, plan, plan_features(plan), photographs)
        found: Curves = {}
        for preset in PRESETS:
            teacher = fixed if preset == "prim-hybrid" else variable
            found[preset] = _train(store, plan, Loss(preset=preset), teacher, photographs)
        return found


def _train(
    store: Store, plan: CropPlan, loss: Loss, teacher: TeacherWeights, photographs: tuple[Photograph, ...]
) -> list[dict[str, float]]:
    torch.manual_seed(0)
    student = build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="variable-rate")
    wanted = taps([(loss, "hyperprior")], teacher=teacher.family, rate_points=RATE_POINTS)
    plans, bits = [plan_features(plan)], None
    if wanted:
        plans.append(plan_features(plan, teacher, wanted))
        _fill(store, plan, plans[1], photographs)
        entropy = entropy_tap(loss, RATE_POINTS)
        if entropy:
            rate_points = [plan.crops[shard[0]].rate_point for shard in plan.shards]
            bits = channel_bits(store, plans[1], entropy, rate_points)
    reader = Reader(store.url, plan, plans, rank=0, world=1, batch_size=BATCH, seed=0)
    images = STEPS * BATCH
    loop = Loop(
        ladder=student,
        training=Training(batch_size=BATCH, ranks_per_trial=1, zero_stage=0, learning_rate=1e-3),
        reader=reader,
        learning_rate=cosine(1e-3, images),
        distillation=Distillation.of(loss, student, read_metadata(teacher.path), images, bits),
    )
    ends = range(EVERY * BATCH, images + 1, EVERY * BATCH)
    rows = [{name: value for name, value in loop.train_to(end).items() if name not in _NOT_TERMS} for end in ends]
    reader.close()
    loop.close()
    return rows


_NOT_TERMS = ("first_step_at", "seconds", "skipped_steps")


def _shipped() -> TeacherWeights:
    path = ROOT / "models" / "weights" / "teacher-hyperprior.safetensors"
    return TeacherWeights(name="shipped", path=str(path), digest=digest(path))


def _networks(path: Path) -> TeacherWeights:
    """The hybrid's two teachers and those between: one network a lambda, with random weights."""
    torch.manual_seed(1)
    save_ladder(path, build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="fixed-lambda"))
    return TeacherWeights(name="fixed", path=str(path), digest=digest(path), kind="fixed-lambda")


def _fill(store: Store, plan: CropPlan, features: FeaturePlan, photographs: tuple[Photograph, ...]) -> None:
    by_digest = {photograph.digest: photograph for photograph in photographs}
    shards = range(len(features.shards))
    filled = [fill_shard(store, ShardWork.of(plan, features, shard, by_digest)) for shard in shards]
    publish_ledger(store, features, {shard: each.entries for shard, each in enumerate(filled) if each is not None})


def rounded(found: Mapping[str, list[dict[str, float]]]) -> Curves:
    """As the file has it."""
    return {
        preset: [{name: float(f"{value:.7g}") for name, value in row.items()} for row in rows]
        for preset, rows in found.items()
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(rounded(curves()), indent=1) + "\n")
    print(FILE)
