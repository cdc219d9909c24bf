"""Filling the store: pixels and teacher outputs of a crop plan, shard by shard, each once.

Whoever fills a shard holds its claim, so fills of several sweeps on several nodes share the work out between them.
Objects are published as they are made, the ledger when all are there. A fill that was cut off goes on where it stood,
and one that finds everything computes nothing.
"""

from __future__ import annotations

import heapq
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.features.fill.claim import LEASE_S
from orchestrator.features.fill.shard import Filled, ShardWork, compute, fill_shard, fill_shards, pixels_of
from orchestrator.features.format.key import FeaturePlan, Tap, plan_features
from orchestrator.features.format.ledger import Entry, Ledger, publish_ledger, read_ledger
from orchestrator.features.format.tap_file import encode
from orchestrator.features.keep.inventory import in_threads
from orchestrator.photographs.crops import CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store

PROGRESS_S = 3.0
TOGETHER = 4  # shards a task at most: all but the last one's objects are published while it computes
CANCEL_S = 5.0  # to wait for tasks that are not wanted any more


Place = tuple[FeaturePlan, int]  # and one of its shards


@dataclass(frozen=True, kw_only=True)
class FillReport:
    reused_shards: int  # over all feature plans
    computed_shards: int  # at least one tap of theirs had to be made
    duplicated_shards: int  # computed, but somebody else had taken them over meanwhile
    bytes: int  # published
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a fill of one feature plan would take, from the time and the bytes of one of its shards."""

    title: str
    shards: int
    missing: int
    crops: int  # of the missing shards
    bytes: dict[Tap, int]  # of the missing shards
    requests: int
    teacher_hours: float  # of one CPU, or of one GPU if Ray has any


def missing(store: Store, features: FeaturePlan) -> tuple[int, ...]:
    """Shards that lack an object, or have one of another size; all, as long as there is no ledger. Lists each tap."""
    return _lacking(store, features, read_ledger(store, features))


def fill(
    store: Store,
    plan: CropPlan,
    feature_plans: Iterable[FeaturePlan],
    photographs: Sequence[Photograph],
    progress: Callable[[str], None] = print,
    *,
    lease_s: float = LEASE_S,
) -> FillReport:
    """Makes whatever the store lacks, by Ray tasks of one CPU each over all (teacher, shard) pairs. Ray must run.

    A shard that somebody else fills is waited for, and taken over once its holder has been silent for `lease_s`.

    Raises FeatureError, PhotographError or StoreError: what the first failing task raised. What others made is kept.
    """
    began = time.monotonic()
    # Pixels first: a teacher's task then reads them from the store.
    plans = sorted({each.digest: each for each in feature_plans}.values(), key=lambda each: each.teacher is not None)
    pixels = next((features for features in plans if features.teacher is None), plan_features(plan))
    by_digest = {photograph.digest: photograph for photograph in photographs}
    ledgers = {features.digest: read_ledger(store, features) for features in plans}
    total, token = sum(len(features.shards) for features in plans), secrets.token_hex(8)
    todo: list[Place] = []
    for features in plans:
        lacking = list(_lacking(store, features, ledgers[features.digest]))
        # In an order of its own: of two fills that begin at once one would follow on the other's heels.
        random.Random(token).shuffle(lacking)
        todo += [(features, shard) for shard in lacking]
    run = _Run(store, total, total - len(todo), progress)

    def work(features: FeaturePlan, shard: int, suspect: bool) -> ShardWork:
        its_pixels = pixels if features.teacher else None
        return ShardWork.of(plan, features, shard, by_digest, fill=token, suspect=suspect, pixels=its_pixels)

    if todo:
        store.check_conditional_writes()
        # Of a plan that was whole once the records may say too much, and once more of what they said too much.
        run.all(todo, lambda features, shard: work(features, shard, ledgers[features.digest] is not None), lease_s)
        gone = [(f, shard) for f in plans for shard in _gone(store, f, run.filled.get(f.digest, {}))]
        run.again(gone)
        run.all(gone, lambda features, shard: work(features, shard, True), lease_s)
    for features in plans:
        made = {shard: each.entries for shard, each in run.filled.get(features.digest, {}).items()}
        publish_ledger(store, features, made)
    done = [each for shards in run.filled.values() for each in shards.values()]
    computed = sum(each.computed for each in done)
    return FillReport(
        reused_shards=total - computed,
        computed_shards=computed,
        duplicated_shards=run.duplicated,
        bytes=run.bytes,
        seconds=time.monotonic() - began,
    )


def estimate(
    store: Store, plan: CropPlan, feature_plans: Iterable[FeaturePlan], photographs: Sequence[Photograph]
) -> list[Estimate]:
    """What `fill` would take. Computes one missing shard of each feature plan by a Ray task, and writes nothing.

    Raises as `fill`.
    """
    by_digest = {photograph.digest: photograph for photograph in photographs}
    found = []
    for features in feature_plans:
        lacking = missing(store, features)
        crops = sum(len(features.shards[shard]) for shard in lacking)
        sizes: dict[Tap, int] = dict.fromkeys(features.taps, 0)
        hours = 0.0
        if lacking:
            task = _remote(_measure, bool(features.teacher))
            measured, bytes_each, seconds = _get(task.remote(ShardWork.of(plan, features, lacking[0], by_digest)))
            sizes = {tap: round(size * crops / measured) for tap, size in bytes_each.items()}
            hours = seconds * crops / measured / 3600 if features.teacher else 0.0
        # a shard: its record read, claimed and finished, the pixels' record and object read, each tap written
        requests = len(lacking) * (3 + 2 * bool(features.teacher) + len(features.taps))
        found.append(
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
    return found


def mend(
    store: Store, plan: CropPlan, features: FeaturePlan, shard: int, photographs: Sequence[Photograph]
) -> tuple[str, ...]:
    """Looks at a shard's objects themselves and makes anew, in this process, what is damaged or gone; what it found.

    Raises as `fill`.
    """
    by_digest = {photograph.digest: photograph for photograph in photographs}
    work = ShardWork.of(plan, features, shard, by_digest, suspect=True)
    while (filled := fill_shard(store, work)) is None or filled.duplicated:
        time.sleep(1)
    publish_ledger(store, features, {shard: filled.entries})
    return filled.findings


def _lacking(store: Store, features: FeaturePlan, ledger: Ledger | None) -> tuple[int, ...]:
    if ledger is None:
        return tuple(range(len(features.shards)))
    listed = {shard: {tap: ledger[tap][shard] for tap in features.taps} for shard in range(len(features.shards))}
    return _other_sizes(store, features, listed)


def _gone(store: Store, features: FeaturePlan, filled: Mapping[int, Filled]) -> tuple[int, ...]:
    """Shards whose record was taken at its word, and whose objects are not there."""
    return _other_sizes(store, features, {shard: each.entries for shard, each in filled.items() if not each.computed})


def _other_sizes(store: Store, features: FeaturePlan, entries: Mapping[int, Mapping[Tap, Entry]]) -> tuple[int, ...]:
    if not entries:
        return ()
    folders = dict.fromkeys(features.folder(tap) for tap in features.taps)
    sizes = {name: size for _, listed in in_threads(store.sizes, folders) for name, size in listed.items()}
    return tuple(
        shard
        for shard, taps in entries.items()
        if any(sizes.get(features.object(tap, shard)) != entry.bytes for tap, entry in taps.items())
    )


class _Run:
    """The tasks of one fill, with a line of progress every few seconds."""

    def __init__(self, store: Store, total: int, done: int, progress: Callable[[str], None]) -> None:
        self.filled: dict[str, dict[int, Filled]] = {}
        self.duplicated = self.bytes = 0
        self._store, self._total, self._done, self._progress = store, total, done, progress
        self._began = self._spoken = time.monotonic()

    def all(self, places: Iterable[Place], work: Callable[[FeaturePlan, int], ShardWork], lease_s: float) -> None:
        """Runs all tasks; never more of them wait in Ray than keep it busy."""
        import ray

        tasks = {teacher: _remote(_task, teacher) for teacher in (False, True)}
        queue, waiting = deque(places), dict[Any, list[Place]]()
        later: list[tuple[float, int, Place]] = []  # filled by others
        pause, count = min(5.0, lease_s / 4), 0
        try:
            while queue or waiting or later:
                cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # anew: a cluster may grow
                while later and later[0][0] <= time.monotonic():
                    queue.appendleft(heapq.heappop(later)[2])
                while queue and len(waiting) < 2 * cpus:
                    some = _alike(queue, max(1, min(TOGETHER, len(queue) // (2 * cpus))))
                    task = tasks[some[0][0].teacher is not None]
                    waiting[task.remote(self._store.url, [work(*place) for place in some], lease_s)] = some
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=PROGRESS_S) if waiting else ([], None)
                for reference in ready:
                    for place, filled in zip(waiting.pop(reference), _get(reference), strict=True):
                        if not self._take(place, filled):
                            count += 1
                            heapq.heappush(later, (time.monotonic() + pause, count, place))
                if not waiting and not queue and later:
                    time.sleep(max(0.0, min(PROGRESS_S, later[0][0] - time.monotonic())))
                self._say(len(later))
        except BaseException:
            for reference in waiting:
                ray.cancel(reference, force=False)
            ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=CANCEL_S) if waiting else ([], None)
            for reference in ended:
                with suppress(Exception):  # if nobody asked, Ray would print it
                    ray.get(reference)
            raise
        self._say(0, last=True)

    def again(self, places: Iterable[Place]) -> None:
        """Forget that these are done."""
        for features, shard in places:
            del self.filled[features.digest][shard]
            self._done -= 1

    def _take(self, place: Place, filled: Filled | None) -> bool:
        """False if the shard is not done."""
        if filled is None:
            return False
        self.bytes += filled.bytes
        self.duplicated += filled.duplicated and filled.computed
        for finding in filled.findings:
            self._progress(f"features: {finding}; made anew")
        if filled.duplicated:
            return False
        features, shard = place
        self.filled.setdefault(features.digest, {})[shard] = filled
        self._done += 1
        return True

    def _say(self, others: int, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._spoken < PROGRESS_S and not last:
            return
        self._spoken = now
        rate = self.bytes / 1e6 / max(now - self._began, 1e-9)
        elsewhere = f", {others} being filled by others" if others else ""
        self._progress(f"features: {self._done}/{self._total} shards, {rate:.1f} MB/s{elsewhere}")


def _alike(queue: deque[Place], most: int) -> list[Place]:
    """The first of the queue that are of one feature plan, taken out of it."""
    some = [queue.popleft()]
    while queue and len(some) < most and queue[0][0] is some[0][0]:
        some.append(queue.popleft())
    return some


def _remote(function: Callable[..., Any], teacher: bool) -> Any:
    """A Ray task of one CPU, and for a teacher of a GPU where Ray has any; it survives the death of its worker."""
    import ray

    gpus = 1 if teacher and ray.cluster_resources().get("GPU", 0) >= 1 else 0
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(function)


def _get(reference: Any) -> Any:
    """A task's answer, or what it raised."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error


def _task(url: str, works: Sequence[ShardWork], lease_s: float) -> list[Filled | None]:
    return fill_shards(Store(url), works, lease_s)


def _measure(work: ShardWork) -> tuple[int, dict[Tap, int], float]:
    """Crops, bytes by tap and seconds of one shard, the second time: loading the teacher is not counted."""
    compute(work, pixels_of(work), list(work.objects))
    began = time.monotonic()
    made = compute(work, pixels_of(work), list(work.objects))
    sizes = {tap: len(encode(tap, values)) for tap, values in made.items()}
    return len(work.crops), sizes, time.monotonic() - began
