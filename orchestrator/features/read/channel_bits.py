"""Bits of each channel of a teacher's y at each rate point, over a crop plan: FEDS weighs channels by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.form import Array
from orchestrator.features.format.key import FeatureError, FeaturePlan, Tap
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store

Bits = tuple[tuple[float, ...], ...]  # [rate points][M]


def channel_bits(store: Store, features: FeaturePlan, tap: Tap, rate_points: Sequence[int]) -> Bits:
    """The mean of a filled `entropy` tap over the crops of each rate point, in bits per position.

    Computed once and then kept in the store, under the digest of its input.

    Args:
        features: a plan with that tap, whose ledger exists.
        rate_points: that of each shard.

    Raises:
        FeatureError: an object, or what was computed before, is damaged.
        FileNotFoundError: the tap is not filled.
        StoreError: the store cannot be read, or the result cannot be written to it.
    """
    keys = [features.key(tap, shard) for shard in range(len(features.shards))]
    name = f"channel-bits/{hashlib.sha256(json.dumps([keys, rate_points]).encode()).hexdigest()}.json"
    with suppress(FileNotFoundError):
        return _from_json(store.read(name), f"{store.url}/{name}")

    def rows_of(shard: int) -> Array:
        return StoredTap(tap, MemoryBlob(store.read(features.object(tap, shard)))).rows()

    rows: dict[int, list[Array]] = {}
    for shard, array in in_threads(rows_of, range(len(rate_points))):
        rows.setdefault(rate_points[shard], []).append(array)
    bits = [np.concatenate(rows[at]).mean(axis=0, dtype=np.float64).ravel().tolist() for at in sorted(rows)]
    data = json.dumps(bits).encode()
    store.publish(name, data)
    return _from_json(data, name)


def _from_json(data: bytes, where: str) -> Bits:
    try:
        return tuple(tuple(map(float, row)) for row in json.loads(data))
    except (ValueError, TypeError, RecursionError):
        raise FeatureError(f"{where}: not the bits of channels, or cut off; delete it, and it is made again") from None
