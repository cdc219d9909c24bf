"""Bits of each channel of a teacher's y at each rate point, over a crop plan: FEDS weighs channels by them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.form import Array
from orchestrator.features.format.key import FeatureError, FeaturePlan, Tap
from orchestrator.features.format.ledger import Ledgers
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
    ledgers = Ledgers(store, features)
    keys = [ledgers.entry(tap, shard).key for shard in range(len(features.shards))]
    name = f"channel-bits/{hashlib.sha256(json.dumps([keys, rate_points]).encode()).hexdigest()}.json"
    with suppress(FileNotFoundError):
        return _from_json(store.read(name), f"{store.url}/{name}")

    def rows_of(shard: int) -> Array:
        return StoredTap(tap, MemoryBlob(store.read(features.object_of(tap, keys[shard])))).rows()

    sums: dict[int, Array] = {}
    counts = Counter[int]()
    for shard, rows in in_threads(rows_of, range(len(rate_points))):
        at = rate_points[shard]
        summed = [sums[at][None]] if at in sums else []  # one row after the other: the same sum in any shards
        sums[at] = np.concatenate([*summed, rows.astype(np.float64)]).sum(axis=0)
        counts[at] += len(rows)
    bits = [(sums[at] / counts[at]).ravel().tolist() for at in sorted(sums)]
    data = json.dumps(bits).encode()
    store.publish(name, data)
    return _from_json(data, name)


def _from_json(data: bytes, where: str) -> Bits:
    try:
        return tuple(tuple(map(float, row)) for row in json.loads(data))
    except (ValueError, TypeError, RecursionError):
        raise FeatureError(f"{where}: not the bits of channels, or cut off; delete it, and it is made again") from None
