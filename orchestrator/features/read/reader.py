"""Crops with the teacher's targets, read from the store for a training step; the teacher itself is not run.

Each node fetches whole shards once, into its disk cache, before the steps that need them; of a shard only the crops of
this rank are read and decoded. Objects are asked for by name and checked against the ledger; nothing is listed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, product

import numpy as np
import torch

from orchestrator.features.format.form import Array, Form, floats, plain
from orchestrator.features.format.key import FeatureError, FeaturePlan, Tap
from orchestrator.features.format.recent import Recent
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.objects import Objects, Opened
from orchestrator.features.read.prefetch import Prefetcher
from orchestrator.photographs.crops import CropPlan, batch_at
from orchestrator.photographs.passes import WINDOW_SHARDS
from orchestrator.store.store import Store

DOWNLOADS = 4  # at a time
LOOKAHEAD = 64  # steps whose shards are fetched ahead
MOST_WORKERS = 4

OfCrop = tuple[Tap, int]
OfShard = tuple[Tap, int]


def workers_for(cores: int, on_gpu: bool) -> int:
    """How many threads should read the crops of a rank: at least 1.

    On CPUs the others would only take time from training. On a GPU a quarter of the cores that the process may use:
    ranks of several trials share them.
    """
    return max(1, min(MOST_WORKERS, cores // 4)) if on_gpu else 1


class Reader:
    """One rank's batches. Those of the next steps are read during training.

    As many objects are open as two windows of the crop plan have, of the taps that are read: one window is trained on
    while the next is opened, so that no object is opened twice in a window.

    Args:
        store_url: where `fill` put the features.
        plan: the crop plan that the feature plans belong to.
        feature_plans: the pixels' plan, and for distillation a teacher's.
        rank, world: this rank takes every `world`-th crop of a batch, from `rank` on.
        batch_size: crops a step, over all ranks.
        seed: of the order of the crops.
        taps_at: step -> which of the teacher's taps it needs; None: all of them, always.
        cache: this node's; not used for a store on `file://`, which is read directly, unless it keeps shards decoded.
            None: shards are kept in memory.
        memory_bytes: limit of crops in memory, and of shards that the cache could not take.
        as_stored: batches are as the store has them, in pinned memory where there is CUDA, and `Batch.on` undoes them.
            On a CPU that costs the thread that trains more than it saves.
        workers: threads that read the crops of a batch.

    Attributes:
        noise: crops and step -> their quantisation noise, which the thread that reads makes as well; None: batches have
            none.

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
        as_stored: bool = False,
        workers: int = 1,
    ) -> None:
        self._plan, self._as_stored = plan, as_stored
        self.noise: Callable[[Sequence[int], int], torch.Tensor] | None = None
        self._pinned = as_stored and torch.cuda.is_available()  # the host would wait for a copy of other memory
        self._rank, self._world, self._batch_size, self._seed = rank, world, batch_size, seed
        self._objects = Objects(Store(store_url), feature_plans, cache)
        if "x" not in self._objects.taps:
            raise FeatureError("a reader needs the pixels' feature plan, with or without a teacher's")
        teachers = [tap for tap in self._objects.taps if tap != "x"]
        self._taps_at = taps_at or (lambda step: teachers)
        self._memory_bytes, self._recent = memory_bytes, Recent(memory_bytes)
        self._downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="shards")
        self._worker_count, self._forms = workers, dict[Tap, Form]()
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="crops") if workers > 1 else None
        # by tap and shard, the batches' thread's alone
        self._coming: dict[OfShard, Future[Opened]] = {}
        self._open: OrderedDict[OfShard, Opened] = OrderedDict()  # the most recently used last
        self._any_in_memory = False
        self._taps: set[Tap] = set()  # read so far
        self._asked_to = 0
        self._prefetcher = Prefetcher(self._read)

    @property
    def waited_s(self) -> float:
        """Seconds that `batch` has waited for data so far."""
        return self._prefetcher.waited_s

    @property
    def read_bytes(self) -> int:
        """Bytes of objects read from the store so far; those that the node's cache has are not read."""
        return self._objects.read_bytes

    @property
    def open_objects(self) -> int:
        """How many objects may be open: two windows of all rate points, of the taps that were read so far."""
        return 2 * WINDOW_SHARDS * self._plan.rate_points * len(self._taps)

    def batch(self, step: int) -> Batch:
        """This rank's crops of a step and their targets; see `Batch` for shapes."""
        return self._prefetcher.batch(step)

    def close(self) -> None:
        """Ends the threads and drops what they had read ahead."""
        self._downloads.shutdown(wait=False, cancel_futures=True)
        self._prefetcher.close()
        if self._workers is not None:
            self._workers.shutdown(wait=True)
        self._downloads.shutdown(wait=True)
        came = (future for future in self._coming.values() if not future.cancelled() and future.exception() is None)
        for opened in (*self._open.values(), *(future.result() for future in came)):
            opened.close()
        self._coming.clear()
        self._open.clear()

    def _read(self, step: int) -> Batch:
        rate_point, ids = self._ids(step)
        for coming in range(max(step, self._asked_to), step + LOOKAHEAD):
            taps = ("x", *self._taps_at(coming))
            self._taps.update(taps)
            shards = {self._plan.shards.place(crop)[0] for crop in self._ids(coming)[1]}
            for place in product(taps, shards):
                self._ask_for(place)
        self._asked_to = step + LOOKAHEAD
        taps = ("x", *self._taps_at(step))
        self._taps.update(taps)
        rows = self._rows([(tap, crop) for tap in taps for crop in ids])
        tensors = {tap: self._stacked(tap, [rows[tap, crop] for crop in ids]) for tap in taps}
        stored = {tap: self._forms[tap] for tap in taps} if self._as_stored else {}
        self._close_oldest()
        noise = None if self.noise is None else self.noise(ids, step)
        if noise is not None and self._pinned:
            noise = noise.pin_memory()
        return Batch(x=tensors.pop("x"), rate_point=rate_point, crops=ids, targets=tensors, stored=stored, noise=noise)

    def _stacked(self, tap: Tap, rows: Sequence[Array]) -> torch.Tensor:
        if not self._as_stored:
            # By NumPy: torch would start a second pool of threads beside the one that trains.
            return torch.from_numpy(floats(self._forms[tap], np.stack(rows)))
        tensor = torch.empty((len(rows), rows[0].size), dtype=torch.uint8, pin_memory=self._pinned)
        np.stack(rows, out=tensor.numpy())
        return tensor

    def _ids(self, step: int) -> tuple[int, tuple[int, ...]]:
        rate_point, ids = batch_at(self._plan, step, self._batch_size, self._seed)
        return rate_point, ids[self._rank :: self._world]

    def _rows(self, places: Sequence[OfCrop]) -> dict[OfCrop, Array]:
        """Crops of taps as bytes, in the forms of `_forms`; each is read once."""
        found = {place: row for place in places if (row := self._recent.find(place)) is not None}
        missing = [place for place in dict.fromkeys(places) if place not in found]
        opened = {place: self._object(place[0], self._plan.shards.place(place[1])[0]) for place in missing}
        for (tap, _), shard in opened.items():
            self._forms[tap] = shard.form if self._as_stored else shard.form.plain
        rows = zip(missing, self._each(lambda place: self._row(place, opened[place]), missing), strict=True)
        for place, row in rows:
            found[place] = row
            if isinstance(opened[place], StoredTap):  # a decoded one is in memory as the kernel has mapped it
                self._recent.add(place, row)
        return found

    def _each(self, read: Callable[[OfCrop], Array], places: Sequence[OfCrop]) -> Iterable[Array]:
        """`read` of each place, shared out over the workers."""
        if self._workers is None:
            return map(read, places)
        share = -(-len(places) // self._worker_count)
        shares = [places[first : first + share] for first in range(0, len(places), share)] if places else []
        return chain.from_iterable(self._workers.map(lambda some: [read(place) for place in some], shares))

    def _row(self, place: OfCrop, opened: Opened) -> Array:
        tap, crop = place
        shard, index = self._plan.shards.place(crop)
        try:
            row = opened.packed(index)
        except FeatureError as error:  # a bit flipped on the node's disk
            raise self._objects.damaged(tap, shard, str(error)) from error
        return row if self._as_stored else plain(opened.form, row)

    def _ask_for(self, place: OfShard) -> None:
        """Has an object opened that is not, and opened again if that failed."""
        if place in self._open:
            self._open.move_to_end(place)
            return
        future = self._coming.get(place)
        if future is None or (future.done() and future.exception() is not None):
            self._coming[place] = self._downloads.submit(self._opened, *place)

    def _object(self, tap: Tap, shard: int) -> Opened:
        """The shard's object, once it is open."""
        self._ask_for((tap, shard))
        if (tap, shard) not in self._open:
            self._open[tap, shard] = self._coming[tap, shard].result()
            del self._coming[tap, shard]
        return self._open[tap, shard]

    def _opened(self, tap: Tap, shard: int) -> Opened:
        """Runs in a download thread."""
        opened = self._objects.open(tap, shard)
        if opened.memory_bytes:
            self._any_in_memory = True
        return opened

    def _close_oldest(self) -> None:
        """Closes the least recently used objects while there are too many, or too many bytes of them in memory."""
        held = sum(opened.memory_bytes for opened in self._open.values()) if self._any_in_memory else 0
        while len(self._open) > self.open_objects or (held > self._memory_bytes and self._open):
            _, opened = self._open.popitem(last=False)
            held -= opened.memory_bytes
            opened.close()
