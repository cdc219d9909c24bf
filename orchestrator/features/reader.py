"""Crops with the teacher's targets, out of the store into a training step; the teacher itself is not run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from orchestrator.crops import CropPlan, batch_at
from orchestrator.features.batch import Batch
from orchestrator.features.codec import Array, decode
from orchestrator.features.key import FeatureError, FeaturePlan, Tap
from orchestrator.features.ledger import Ledger, read_ledger
from orchestrator.features.recent import Recent
from orchestrator.store import Store


class Reader:
    """One rank's batches. The batch of step t+1 is read by a thread while step t trains.

    Args:
        store_url: where `fill` put the features.
        plan: the crop plan that the feature plans belong to.
        feature_plans: the pixels' plan, and for distillation a teacher's.
        rank, world: this rank takes every `world`-th crop of a batch, from `rank` on.
        batch_size: crops a step, over all ranks.
        seed: of the order of the crops.
        cache_bytes: bound on decoded shards held in memory.

    Raises:
        FeatureError: a ledger is missing; in `batch`, an object is missing or is not what its ledger says.
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
        cache_bytes: int = 512 * 2**20,
    ) -> None:
        self._store, self._plan = Store(store_url), plan
        self._rank, self._world, self._batch_size, self._seed = rank, world, batch_size, seed
        self._sources: dict[Tap, tuple[FeaturePlan, Ledger]] = {}
        for features in feature_plans:
            ledger = read_ledger(self._store, features)
            if ledger is None:
                raise FeatureError(
                    f"{self._store.url}: {features.title} is not filled in ({features.ledger} is missing)"
                )
            self._sources.update(dict.fromkeys(features.taps, (features, ledger)))
        if "x" not in self._sources:
            raise FeatureError("a reader needs the pixels' feature plan, with or without a teacher's")
        # All feature plans of a crop plan are sharded alike.
        shards = self._sources["x"][0].shards
        self._places = {crop: (shard, row) for shard, ids in enumerate(shards) for row, crop in enumerate(ids)}
        self._recent = Recent(cache_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """This rank's crops of a step and their targets; see `Batch` for shapes."""
        if self._ahead is not None and self._ahead[0] == step:
            future = self._ahead[1]
        else:
            future = self._thread.submit(self._read, step)
        self._ahead = step + 1, self._thread.submit(self._read, step + 1)
        return future.result()

    def close(self) -> None:
        """Ends the thread; what it had read ahead is dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> Batch:
        rate_point, ids = batch_at(self._plan, step, self._batch_size, self._seed)
        places = [self._places[crop] for crop in ids[self._rank :: self._world]]
        tensors: dict[str, torch.Tensor] = {}
        for tap in self._sources:
            rows = np.stack([self._shard(tap, shard)[row] for shard, row in places])
            values = torch.from_numpy(rows)
            tensors[tap] = values.float().div_(255) if rows.dtype == np.uint8 else values.float()
        return Batch(x=tensors.pop("x"), rate_point=rate_point, targets=tensors)

    def _shard(self, tap: Tap, shard: int) -> Array:
        return self._recent.get((tap, shard), lambda: self._verified(tap, shard))

    def _verified(self, tap: Tap, shard: int) -> Array:
        features, ledger = self._sources[tap]
        name, entry = features.object(tap, shard), ledger[tap][shard]
        where = f"{self._store.url}/{name}: tap {tap}, shard {shard}, key {entry.key}"
        try:
            data = self._store.read(name)
        except FileNotFoundError as error:
            raise FeatureError(f"{where}: the object is missing; fill the store again") from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise FeatureError(
                f"{where}: {len(data)} bytes whose digest is not the ledger's; delete the object and fill again"
            )
        values = decode(tap, data)
        if len(values) != len(features.shards[shard]):
            raise FeatureError(f"{where}: {len(values)} crops, {len(features.shards[shard])} expected")
        return values
