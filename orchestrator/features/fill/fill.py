"""Filling the store: pixels and teacher outputs of a crop plan, shard by shard, each once.

Whoever fills a shard holds its claim, so fills of several sweeps on several nodes share the work. Objects are published
when they are made, the ledger when all of them exist. A fill that was interrupted continues where it stopped, and one
that finds everything computes nothing.
"""

from __future__ import annotations

import heapq
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.features.fill.claim import LEASE_S
from orchestrator.features.fill.missing import Listing, Part
from orchestrator.features.fill.publish import Filled, fill_shard, fill_shards
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import FeaturePlan, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store

PROGRESS_S = 3.0
SHARDS_A_TASK = 4  # at most: while the task computes one, the one before it is published
CANCEL_S = 5.0  # to wait for cancelled tasks


PlannedShard = tuple[FeaturePlan, int]  # a feature plan and the index of one of its shards


@dataclass(frozen=True, kw_only=True)
class FillReport:
    """What a fill did."""

    reused_shards: int  # over all feature plans
    computed_shards: int  # at least one tap of theirs had to be made
    duplicated_shards: int  # computed, but another process had taken them over by then
    bytes: int  # published
    seconds: float
    task_s: float  # summed over the tasks


def fill(
    store: Store,
    plan: CropPlan,
    feature_plans: Iterable[FeaturePlan],
    photographs: Sequence[Photograph],
    progress: Callable[[str], None] = print,
    *,
    lease_s: float = LEASE_S,
) -> FillReport:
    """Makes what the store lacks, by Ray tasks of one CPU each. Ray must run.

    Args:
        progress: takes a line every few seconds.
        lease_s: a shard that another process fills is waited for, and taken over after so many seconds without a sign
            of life from it.

    Raises FeatureError, PhotographError or StoreError: what the first failing task raised. What was published is kept.
    """
    began = time.monotonic()
    plans = _pixels_first(feature_plans)
    pixels = next((features for features in plans if features.teacher is None), plan_features(plan))
    by_digest, listing = PhotographTable.of(photographs).by_digest, Listing(store)
    total, token = sum(len(features.shards) for features in plans), secrets.token_hex(8)
    run = _Run(store, total, progress)

    def work(features: FeaturePlan, shard: int, suspect: bool) -> ShardWork:
        stored_pixels = pixels if features.teacher else None
        return ShardWork.of(plan, features, shard, by_digest, fill=token, suspect=suspect, pixels=stored_pixels)

    # Part by part, so that of a large plan no more is held than one part's entries.
    for number in range(max((len(features.parts) for features in plans), default=0)):
        parts = [Part(listing, features, number) for features in plans if number < len(features.parts)]
        run.fill_parts(parts, work, token, lease_s)
    return FillReport(
        reused_shards=total - run.computed,
        computed_shards=run.computed,
        duplicated_shards=run.duplicated,
        bytes=run.bytes,
        seconds=time.monotonic() - began,
        task_s=run.task_s,
    )


def _pixels_first(feature_plans: Iterable[FeaturePlan]) -> list[FeaturePlan]:
    """Each plan once; a teacher's tasks then read the pixels from the store."""
    by_digest = {features.digest: features for features in feature_plans}
    return sorted(by_digest.values(), key=lambda features: features.teacher is not None)


def mend(
    store: Store, features: FeaturePlan, shard: int, sources: tuple[CropPlan, Sequence[Photograph]]
) -> tuple[str, ...]:
    """Checks a shard's objects and makes damaged or missing ones again, in this process. Returns one line for each.

    Waits while another process fills the shard. Raises what `fill` raises.

    Args:
        features: of these crops; a trial's has only their order.
        sources: the crops, and their photographs.
    """
    plan, photographs = sources
    features = replace(features, crops=plan)
    work = ShardWork.of(plan, features, shard, PhotographTable.of(photographs).by_digest, suspect=True)
    while (filled := fill_shard(store, work)) is None or filled.duplicated:
        time.sleep(1)
    publish_ledger(store, features, {shard: filled.entries})
    return filled.findings


class _Run:
    """The tasks of one fill, with a line of progress every few seconds."""

    def __init__(self, store: Store, total: int, progress: Callable[[str], None]) -> None:
        self.computed = self.duplicated = self.bytes = 0
        self.task_s = 0.0
        self._filled: dict[str, dict[int, Filled]] = {}  # of the present parts
        self._store, self._total, self._done, self._progress = store, total, 0, progress
        self._began = self._spoken = time.monotonic()
        self._checked = False

    def fill_parts(
        self,
        parts: Sequence[Part],
        work: Callable[[FeaturePlan, int, bool], ShardWork],
        token: str,
        lease_s: float,
    ) -> None:
        """Fills the same part of all plans, and then writes its ledgers."""
        todo: list[PlannedShard] = []
        for part in parts:
            lacking = list(part.lacking)
            # In random order: two fills that begin at once would otherwise meet at every shard.
            random.Random(token).shuffle(lacking)
            todo += [(part.features, shard) for shard in lacking]
        self._done += sum(len(part.shards) for part in parts) - len(todo)
        self._filled = {part.features.digest: {} for part in parts}
        if not todo:
            return
        if not self._checked:
            self._store.check_conditional_writes()
            self._checked = True
        # A part with a ledger was whole once, so its records may list objects that are gone: check the objects.
        suspect = {part.features.digest: part.has_ledger for part in parts}
        self._fill(todo, lambda features, shard: work(features, shard, suspect[features.digest]), lease_s)
        # Without a ledger the records are trusted at first; shards whose objects are gone are filled again.
        listing = Listing(self._store)
        vanished = [(part.features, shard) for part in parts for shard in self._vanished(listing, part.features)]
        for features, shard in vanished:
            del self._filled[features.digest][shard]
        self._done -= len(vanished)
        self._fill(vanished, lambda features, shard: work(features, shard, True), lease_s)
        for part in parts:
            filled = self._filled[part.features.digest]
            publish_ledger(self._store, part.features, {shard: done.entries for shard, done in filled.items()})
            self.computed += sum(done.computed for done in filled.values())

    def _vanished(self, listing: Listing, features: FeaturePlan) -> tuple[int, ...]:
        """Shards whose record was trusted, and whose objects do not exist."""
        filled = self._filled[features.digest]
        return listing.others(features, {shard: done.entries for shard, done in filled.items() if not done.computed})

    def _fill(
        self, shards: Iterable[PlannedShard], work: Callable[[FeaturePlan, int], ShardWork], lease_s: float
    ) -> None:
        """Fills these shards; Ray gets no more tasks at a time than keep it busy."""
        import ray

        tasks = {teacher: remote(_task, teacher) for teacher in (False, True)}
        queue, running = deque(shards), dict[Any, list[PlannedShard]]()
        later: list[tuple[float, int, PlannedShard]] = []  # filled by others: when to try again, a number, the shard
        pause, count = min(5.0, lease_s / 4), 0
        try:
            while queue or running or later:
                cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # asked again: a cluster may grow
                while later and later[0][0] <= time.monotonic():
                    queue.appendleft(heapq.heappop(later)[2])
                while queue and len(running) < 2 * cpus:
                    together = _of_one_plan(queue, max(1, min(SHARDS_A_TASK, len(queue) // (2 * cpus))))
                    task = tasks[together[0][0].teacher is not None]
                    running[task.remote(self._store.url, [work(*shard) for shard in together], lease_s)] = together
                ready, _ = ray.wait(list(running), num_returns=1, timeout=PROGRESS_S) if running else ([], None)
                for reference in ready:
                    answers, seconds = answer_of(reference)
                    self.task_s += seconds
                    for shard, filled in zip(running.pop(reference), answers, strict=True):
                        if not self._take(shard, filled):
                            count += 1
                            heapq.heappush(later, (time.monotonic() + pause, count, shard))
                if not running and not queue and later:
                    time.sleep(max(0.0, min(PROGRESS_S, later[0][0] - time.monotonic())))
                self._say(len(later))
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=False)
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=CANCEL_S) if running else ([], None)
            for reference in ended:
                with suppress(Exception):  # an error that nobody asks for is printed by Ray
                    ray.get(reference)
            raise
        self._say(0, last=True)

    def _take(self, planned: PlannedShard, filled: Filled | None) -> bool:
        """False if the shard is not done."""
        if filled is None:
            return False
        self.bytes += filled.bytes
        self.duplicated += filled.duplicated and filled.computed
        for finding in filled.findings:
            self._progress(f"features: {finding}; made anew")
        if filled.duplicated:
            return False
        features, shard = planned
        self._filled[features.digest][shard] = filled
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


def _of_one_plan(queue: deque[PlannedShard], most: int) -> list[PlannedShard]:
    """Takes the first shards out of the queue, as far as they are of one feature plan."""
    together = [queue.popleft()]
    while queue and len(together) < most and queue[0][0] is together[0][0]:
        together.append(queue.popleft())
    return together


def remote(function: Callable[..., Any], teacher: bool) -> Any:
    """A Ray task of one CPU, for a teacher also of one GPU where Ray has any; it survives the death of its worker."""
    import ray

    gpus = 1 if teacher and ray.cluster_resources().get("GPU", 0) >= 1 else 0
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(function)


def answer_of(reference: Any) -> Any:
    """What a task returned. Raises what it raised."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error


def _task(url: str, works: Sequence[ShardWork], lease_s: float) -> tuple[list[Filled | None], float]:
    """Returns what became of each shard, and seconds."""
    began = time.monotonic()
    return fill_shards(Store(url), works, lease_s), time.monotonic() - began
