"""Crops with the teacher's targets, read from the store for a training step; the teacher itself is not run.

Each node fetches whole shards once, into its disk cache, before the steps that need them; of a shard only the crops of
this rank are read and decoded. Objects are asked for by name and checked against the ledger; nothing is listed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from orchestrator.features.format.blob import Blob, DigestMismatch, MemoryBlob, open_file
from orchestrator.features.format.key import DamagedObject, FeatureError, FeaturePlan, Tap
from orchestrator.features.format.ledger import Entry, Ledgers
from orchestrator.features.format.recent import Recent
from orchestrator.features.format.tap_file import Array, StoredTap
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.prefetch import Prefetcher
from orchestrator.photographs.crops import CropPlan, batch_at
from orchestrator.store.store import Store

DOWNLOADS = 4  # at a time
LOOKAHEAD = 64  # steps whose shards are fetched ahead
OPEN_OBJECTS = 256  # at most


class Reader:
    """One rank's batches. Those of the next steps are read during training.

    Args:
        store_url: where `fill` put the features.
        plan: the crop plan that the feature plans belong to.
        feature_plans: the pixels' plan, and for distillation a teacher's.
        rank, world: this rank takes every `world`-th crop of a batch, from `rank` on.
        batch_size: crops a step, over all ranks.
        seed: of the order of the crops.
        taps_at: step -> which of the teacher's taps it needs; None: all of them, always.
        cache: this node's; not used for a store on `file://`, which is read directly. None: shards are kept in memory.
        memory_bytes: limit of decoded crops in memory, and of shards that the cache could not take.

    Raises:
        FeatureError: a ledger is missing.
        DamagedObject: by `batch`; an object is missing or is not what its ledger says.
    """

    def __init__(
        self,
        store_url: str,
        plan: CropPlan,
        feature_plans: Sequence[FeaturePlan],
        *,
        rank: int,
        world: int,
        batch_size: int,
        seed: int,
        taps_at: Callable[[int], Collection[Tap]] | None = None,
        cache: NodeCache | None = None,
        memory_bytes: int = 512 * 2**20,
    ) -> None:
        self._store, self._plan, self._cache = Store(store_url), plan, cache
        self._rank, self._world, self._batch_size, self._seed = rank, world, batch_size, seed
        self._sources: dict[Tap, FeaturePlan] = {}
        self._ledgers: dict[str, Ledgers] = {}
        for features in feature_plans:
            self._ledgers[features.digest] = Ledgers(self._store, features)
            self._sources.update(dict.fromkeys(features.taps, features))
        if "x" not in self._sources:
            raise FeatureError("a reader needs the pixels' feature plan, with or without a teacher's")
        teachers = [tap for tap in self._sources if tap != "x"]
        self._taps_at = taps_at or (lambda step: teachers)
        self._memory_bytes, self._recent = memory_bytes, Recent(memory_bytes)
        self._downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="shards")
        self._open: OrderedDict[tuple[Tap, int], Future[StoredTap]] = OrderedDict()  # the batches' thread's alone
        self._asked_to = 0
        self._read_bytes, self._counting = 0, threading.Lock()
        self._prefetcher = Prefetcher(self._read)

    @property
    def waited_s(self) -> float:
        """Seconds that `batch` has waited for data so far."""
        return self._prefetcher.waited_s

    @property
    def read_bytes(self) -> int:
        """Bytes of objects read from the store so far; those that the node's cache has are not read."""
        return self._read_bytes

    def batch(self, step: int) -> Batch:
        """This rank's crops of a step and their targets; see `Batch` for shapes."""
        return self._prefetcher.batch(step)

    def close(self) -> None:
        """Ends the threads and drops what they had read ahead."""
        self._downloads.shutdown(wait=False, cancel_futures=True)
        self._prefetcher.close()
        self._downloads.shutdown(wait=True)
        for future in self._open.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
        self._open.clear()

    def _read(self, step: int) -> Batch:
        rate_point, ids = self._ids(step)
        for coming in range(max(step, self._asked_to), step + LOOKAHEAD):
            taps = ("x", *self._taps_at(coming))
            for crop in self._ids(coming)[1]:
                for tap in taps:
                    self._object(tap, self._plan.shards.place(crop)[0])
        self._asked_to = step + LOOKAHEAD
        tensors: dict[str, torch.Tensor] = {}
        for tap in ("x", *self._taps_at(step)):
            rows = np.stack([self._recent.get((tap, crop), lambda t=tap, c=crop: self._row(t, c)) for crop in ids])  # type: ignore[misc]
            # By NumPy: torch would start a second pool of threads beside the one that trains.
            rows = np.divide(rows, 255, dtype=np.float32) if rows.dtype == np.uint8 else rows
            tensors[tap] = torch.from_numpy(rows)
        self._close_oldest()
        return Batch(x=tensors.pop("x"), rate_point=rate_point, crops=ids, targets=tensors)

    def _ids(self, step: int) -> tuple[int, tuple[int, ...]]:
        rate_point, ids = batch_at(self._plan, step, self._batch_size, self._seed)
        return rate_point, ids[self._rank :: self._world]

    def _row(self, tap: Tap, crop: int) -> Array:
        shard, row = self._plan.shards.place(crop)
        try:
            return self._object(tap, shard).result().row(row)
        except DamagedObject:
            raise
        except FeatureError as error:  # a bit flipped on the node's disk
            raise self._damaged(tap, shard, str(error)) from error

    def _object(self, tap: Tap, shard: int) -> Future[StoredTap]:
        """The shard's object; it is fetched if it is not open, and again if that failed."""
        future = self._open.pop((tap, shard), None)
        if future is None or (future.done() and future.exception() is not None):
            future = self._downloads.submit(self._opened, tap, shard)
        self._open[tap, shard] = future
        return future

    def _close_oldest(self) -> None:
        """Closes the least recently used objects while there are too many, or too many bytes of them in memory."""
        done = [place for place, future in self._open.items() if future.done() and future.exception() is None]
        held = sum(self._open[place].result().memory_bytes for place in done)
        for place in done:
            if len(self._open) <= OPEN_OBJECTS and held <= self._memory_bytes:
                break
            stored = self._open.pop(place).result()
            held -= stored.memory_bytes
            stored.close()

    def _opened(self, tap: Tap, shard: int) -> StoredTap:
        """Runs in a download thread. A damaged object is fetched again by a ledger that is read again, since the object
        may have been made again."""
        ledgers = self._ledgers[self._sources[tap].digest]
        try:
            return self._verified(tap, shard, ledgers.entry(tap, shard), checksum=False)
        except DamagedObject:
            ledgers.forget()
            return self._verified(tap, shard, ledgers.entry(tap, shard), checksum=True)

    def _verified(self, tap: Tap, shard: int, entry: Entry, *, checksum: bool) -> StoredTap:
        features = self._sources[tap]
        name = features.object_of(tap, entry.key)
        try:
            stored = StoredTap(tap, self._blob(name, entry, checksum))
        except FileNotFoundError as error:
            raise self._damaged(tap, shard, "the object is missing") from error
        except DigestMismatch as error:
            raise self._damaged(tap, shard, f"{error.size} bytes whose digest is not the ledger's") from error
        except FeatureError as error:
            raise self._damaged(tap, shard, str(error)) from error
        if len(stored) != len(features.shards[shard]):
            raise self._damaged(tap, shard, f"{len(stored)} crops, {len(features.shards[shard])} expected")
        return stored

    def _blob(self, name: str, entry: Entry, checksum: bool) -> Blob:
        path = self._store.local_path(name)
        if path is not None:
            data = self._counted(path.read_bytes())
            _check(data, entry)
            return open_file(path)
        if self._cache is None:
            data = self._counted(self._store.read(name, checksum=checksum))
            _check(data, entry)
            return MemoryBlob(data)
        return self._cache.open(
            entry.sha256, entry.bytes, lambda: self._counted(self._store.read(name, checksum=checksum))
        )

    def _counted(self, data: bytes) -> bytes:
        with self._counting:
            self._read_bytes += len(data)
        return data

    def _damaged(self, tap: Tap, shard: int, what: str) -> DamagedObject:
        features = self._sources[tap]
        name = features.object_of(tap, self._ledgers[features.digest].entry(tap, shard).key)
        where = f"{self._store.url}/{name}: tap {tap}, shard {shard}"
        return DamagedObject(f"{where}: {what}; fill the store again", features.digest, tap, shard)


def _check(data: bytes, entry: Entry) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise DigestMismatch(entry.sha256, entry.bytes, digest, len(data))
