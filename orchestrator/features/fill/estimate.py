"""What a fill would take: time, bytes and requests, from one shard of each feature plan."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.features.fill.fill import answer_of, remote
from orchestrator.features.fill.missing import missing
from orchestrator.features.fill.shard import ShardWork, compute, pixels_of
from orchestrator.features.format.key import FeaturePlan, Tap
from orchestrator.features.format.tap_file import encode
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a fill of one feature plan would take, by the time and the bytes of one of its shards."""

    title: str
    shards: int
    missing: int
    crops: int  # of the missing shards
    bytes: dict[Tap, int]  # of the missing shards
    requests: int
    teacher_hours: float  # of one CPU, or of one GPU if Ray has any


def estimate(
    store: Store, plan: CropPlan, feature_plans: Iterable[FeaturePlan], photographs: Sequence[Photograph]
) -> list[Estimate]:
    """An estimate for each feature plan, in order. Computes one missing shard of each by a Ray task; writes nothing.

    Raises what `fill` raises.
    """
    by_digest = PhotographTable.of(photographs).by_digest
    estimates = []
    for features in feature_plans:
        lacking = missing(store, features)
        crops = sum(len(features.shards[shard]) for shard in lacking)
        sizes: dict[Tap, int] = dict.fromkeys(features.taps, 0)
        hours = 0.0
        if lacking:
            task = remote(_measure, bool(features.teacher))
            measured, bytes_each, seconds = answer_of(task.remote(ShardWork.of(plan, features, lacking[0], by_digest)))
            sizes = {tap: round(size * crops / measured) for tap, size in bytes_each.items()}
            hours = seconds * crops / measured / 3600 if features.teacher else 0.0
        # for a shard: its record is read, claimed and finished, the pixels' record and object read, each tap written
        requests = len(lacking) * (3 + 2 * bool(features.teacher) + len(features.taps))
        estimates.append(
            Estimate(
                title=features.title,
                shards=len(features.shards),
                missing=len(lacking),
                crops=crops,
                bytes=sizes,
                requests=requests,
                teacher_hours=hours,
            )
        )
    return estimates


def _measure(work: ShardWork) -> tuple[int, dict[Tap, int], float]:
    """Crops, bytes by tap and seconds of one shard, the second time: loading the teacher is not counted."""
    compute(work, pixels_of(work), list(work.objects))
    began = time.monotonic()
    made = compute(work, pixels_of(work), list(work.objects))
    sizes = {tap: len(encode(tap, values)) for tap, values in made.items()}
    return len(work.crops), sizes, time.monotonic() - began
