"""Filling the store: pixels and teacher outputs of a crop plan, shard by shard, each once.

Objects are published as they are made, the ledger when all are there. A fill that was cut off goes on where it stood,
and one that finds everything computes nothing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.crops import CropPlan, cut
from orchestrator.features.codec import decode, encode
from orchestrator.features.key import FeatureError, FeaturePlan, Tap, TeacherWeights
from orchestrator.features.ledger import Entry, Ledger, entry_of, read_ledger, to_json
from orchestrator.features.recent import Recent
from orchestrator.photos import Photograph, load_rgb
from orchestrator.store import Store

if TYPE_CHECKING:
    from models.ladder import RateLadder

FORWARD_CROPS = 16  # crops a forward pass of the teacher
PROGRESS_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class FillReport:
    reused_shards: int  # over all feature plans
    computed_shards: int  # at least one tap of theirs had to be made
    bytes: int  # published
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Filled:
    """One shard, as a task leaves it."""

    entries: dict[Tap, Entry]
    computed: bool
    bytes: int  # published
    findings: tuple[str, ...]  # damaged objects that were made anew


def missing(store: Store, features: FeaturePlan) -> tuple[int, ...]:
    """Shards that lack an object, or all shards as long as there is no ledger to trust. One listing a tap."""
    if read_ledger(store, features) is None:
        return tuple(range(len(features.shards)))
    present = {name for tap in features.taps for name in store.list(features.folder(tap))}
    return tuple(
        shard
        for shard in range(len(features.shards))
        if any(features.object(tap, shard) not in present for tap in features.taps)
    )


def fill(
    store: Store,
    plan: CropPlan,
    feature_plans: Iterable[FeaturePlan],
    photographs: Sequence[Photograph],
    progress: Callable[[str], None] = print,
) -> FillReport:
    """Makes whatever the store lacks, by Ray tasks of one CPU each over all (teacher, shard) pairs. Ray must run.

    Raises FeatureError, PhotographError or StoreError: what the first failing task raised. What others made is kept.
    """
    import ray

    began = time.monotonic()
    plans = list({features.digest: features for features in feature_plans}.values())
    todo = [(features, shard) for features in plans for shard in missing(store, features)]
    total = sum(len(features.shards) for features in plans)
    filled: dict[str, dict[int, Filled]] = {features.digest: {} for features in plans}
    if todo:
        task = ray.remote(num_cpus=1)(_task)
        shared = {features.digest: ray.put(features) for features in plans}
        plan_ref, by_digest = ray.put(plan), ray.put({photograph.digest: photograph for photograph in photographs})
        waiting = {
            task.remote(store.url, plan_ref, shared[features.digest], shard, by_digest): (features, shard)
            for features, shard in todo
        }
        try:
            _collect(waiting, filled, total, progress)
        except BaseException:
            for reference in waiting:
                ray.cancel(reference, force=False)
            raise
    for features in plans:
        _publish_ledger(store, features, filled[features.digest])
    done = [each for shards in filled.values() for each in shards.values()]
    computed = sum(each.computed for each in done)
    return FillReport(
        reused_shards=total - computed,
        computed_shards=computed,
        bytes=sum(each.bytes for each in done),
        seconds=time.monotonic() - began,
    )


def fill_shard(
    store: Store, plan: CropPlan, features: FeaturePlan, shard: int, photographs: Mapping[str, Photograph]
) -> Filled:
    """Publishes the taps of one shard that the store lacks. `photographs` are by digest.

    An object that is already there is taken as it is, once it decodes (zstd's checksum covers all of it); one that does
    not is named in `findings` and made anew. If somebody else publishes first, theirs counts.
    """
    entries: dict[Tap, Entry] = {}
    damaged: dict[Tap, str] = {}
    for tap in features.taps:
        try:
            entries[tap] = entry_of(_key(features, tap, shard), _adopted(store, features, tap, shard))
        except FileNotFoundError:
            continue
        except FeatureError as error:
            damaged[tap] = f"{store.url}/{features.object(tap, shard)}: shard {shard}: {error}"
    wanted = [tap for tap in features.taps if tap not in entries]
    published = 0
    for tap, values in _compute(plan, features, shard, wanted, photographs).items() if wanted else ():
        name, data = features.object(tap, shard), encode(tap, values)
        if tap in damaged:
            store.replace(name, data)
        elif not store.publish(name, data):
            data = store.read(name)
        published += len(data)
        entries[tap] = entry_of(_key(features, tap, shard), data)
    return Filled(entries=entries, computed=bool(wanted), bytes=published, findings=tuple(damaged.values()))


def _task(url: str, plan: CropPlan, features: FeaturePlan, shard: int, photographs: dict[str, Photograph]) -> Filled:
    return fill_shard(Store(url), plan, features, shard, photographs)


def _collect(
    waiting: dict[Any, tuple[FeaturePlan, int]],
    filled: dict[str, dict[int, Filled]],
    total: int,
    progress: Callable[[str], None],
) -> None:
    """Take the tasks' answers as they come, with a line of progress every few seconds."""
    import ray

    began = time.monotonic()
    spoken, published = began, 0
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=PROGRESS_SECONDS)
        for reference in ready:
            features, shard = waiting.pop(reference)
            try:
                answer: Filled = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause or error from error
            filled[features.digest][shard] = answer
            published += answer.bytes
            for finding in answer.findings:
                progress(f"features: {finding}; made anew")
        now = time.monotonic()
        if now - spoken >= PROGRESS_SECONDS or not waiting:
            spoken = now
            rate = published / 1e6 / max(now - began, 1e-9)
            progress(f"features: {total - len(waiting)}/{total} shards, {rate:.1f} MB/s")


def _publish_ledger(store: Store, features: FeaturePlan, filled: Mapping[int, Filled]) -> None:
    """Last of all. A ledger that is there stays, unless objects it lists had to be made anew with other bytes."""
    if not filled:
        return
    old = read_ledger(store, features)
    ledger: Ledger = {
        tap: tuple(
            filled[shard].entries[tap] if shard in filled or old is None else old[tap][shard]
            for shard in range(len(features.shards))
        )
        for tap in features.taps
    }
    if old is None and store.publish(features.ledger, to_json(ledger)):
        return
    if read_ledger(store, features) != ledger:
        store.replace(features.ledger, to_json(ledger))


def _key(features: FeaturePlan, tap: Tap, shard: int) -> str:
    return features.keys[features.taps.index(tap)][shard]


def _adopted(store: Store, features: FeaturePlan, tap: Tap, shard: int) -> bytes:
    """What is stored already. Raises FileNotFoundError, and FeatureError if it cannot be used."""
    data = store.read(features.object(tap, shard))
    count = len(decode(tap, data))
    if count != len(features.shards[shard]):
        raise FeatureError(f"tap {tap}: {count} crops, {len(features.shards[shard])} expected")
    return data


def _compute(
    plan: CropPlan, features: FeaturePlan, shard: int, taps: Sequence[Tap], photographs: Mapping[str, Photograph]
) -> dict[Tap, npt.NDArray[Any]]:
    pixels = _pixels(plan, features.shards[shard], photographs)
    if features.teacher is None:
        return {"x": pixels}
    import torch

    torch.set_num_threads(1)  # a task has one CPU
    ladder = _teacher(features.teacher)
    parts: dict[Tap, list[npt.NDArray[Any]]] = {tap: [] for tap in taps}
    rate_point = plan.crops[features.shards[shard][0]].rate_point
    with torch.inference_mode():
        for start in range(0, len(pixels), FORWARD_CROPS):
            x = torch.from_numpy(pixels[start : start + FORWARD_CROPS]).float().div(255)
            output = ladder(x, rate_point)
            for tap in taps:
                values = output[tap].clamp(0, 1).mul(255).round().byte() if tap == "x_hat" else output[tap].float()
                parts[tap].append(values.numpy())
    return {tap: np.concatenate(values) for tap, values in parts.items()}


def _pixels(plan: CropPlan, ids: Sequence[int], photographs: Mapping[str, Photograph]) -> npt.NDArray[np.uint8]:
    """uint8 [n, 3, S, S]; crops of one photograph are cut together, so it is decoded once."""
    rows = {}
    for index in sorted(ids, key=lambda index: plan.crops[index].photograph):
        crop = plan.crops[index]
        if crop.photograph not in photographs:
            raise FeatureError(f"crop {index}: its photograph {crop.photograph} is not among those surveyed")
        photograph = photographs[crop.photograph]
        rgb = _decoded.get(photograph, functools.partial(load_rgb, photograph))
        rows[index] = cut(rgb, crop).transpose(2, 0, 1)
    return np.stack([rows[index] for index in ids])


_decoded = Recent(128 * 2**20)  # of this process


@functools.lru_cache(maxsize=2)
def _teacher(teacher: TeacherWeights) -> RateLadder:
    from models.weights import WeightsError, digest, load_ladder

    try:
        found = digest(teacher.path)
        if found != teacher.digest:
            raise FeatureError(f"{teacher.path}: digest {found}, but {teacher.digest} was planned for {teacher.name}")
        ladder = load_ladder(teacher.path).eval()
        if ladder.kind != teacher.kind:  # the keys say which taps depend on the rate point
            raise FeatureError(f"{teacher.path}: a {ladder.kind} ladder, planned as {teacher.kind}")
        return ladder
    except (OSError, WeightsError) as error:
        raise FeatureError(f"teacher {teacher.name}: {error}") from error
