"""Bits of each channel of a teacher's y at each rate point, over a crop plan: what FEDS weighs channels by."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from orchestrator.features.codec import StoredTap
from orchestrator.features.key import FeaturePlan, Tap
from orchestrator.features.node_cache import MemoryBlob
from orchestrator.store import Store


def channel_bits(store: Store, features: FeaturePlan, tap: Tap, rate_points: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """The mean of a filled `entropy` tap over the crops of each rate point, [rate points][M], in bits a position.

    Computed once and then kept in the store, under the digest of what it is the mean of.

    Args:
        features: a plan with that tap, whose ledger is there.
        rate_points: of each shard.

    Raises:
        FeatureError: an object is damaged.
        FileNotFoundError: the tap is not filled.
    """
    keys = [features.key(tap, shard) for shard in range(len(features.shards))]
    name = f"channel-bits/{hashlib.sha256(json.dumps([keys, rate_points]).encode()).hexdigest()}.json"
    try:
        return _from_json(store.read(name))
    except FileNotFoundError:
        pass
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for shard, rate_point in enumerate(rate_points):
        rows = StoredTap(tap, MemoryBlob(store.read(features.object(tap, shard)))).rows()
        sums[rate_point] = sums.get(rate_point, 0) + rows.sum(axis=0, dtype=np.float64).ravel()
        counts[rate_point] = counts.get(rate_point, 0) + len(rows)
    bits = [(sums[rate_point] / counts[rate_point]).tolist() for rate_point in sorted(sums)]
    data = json.dumps(bits).encode()
    store.publish(name, data)
    return _from_json(data)


def _from_json(data: bytes) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in json.loads(data))
