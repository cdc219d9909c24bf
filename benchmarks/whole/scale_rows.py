"""What a plan of many photographs costs, of a made-up manifest; `benchmarks.whole.scale` gives it a process."""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lic_codec.counters import peak_memory_mb
from orchestrator.features.format.key import SHARDS_A_PART, FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import Entry, from_json, to_json
from orchestrator.photographs import manifest
from orchestrator.photographs.columns import DIGEST_BYTES, PhotographTable
from orchestrator.photographs.crops import CropPlan, batch_at, plan_crops
from orchestrator.photographs.examine import schema
from orchestrator.photographs.survey import chosen
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

PLACE = "/photographs"
MINIMUM_SIDE = 214
TEACHER = TeacherWeights(name="teacher", path="/teacher.safetensors", digest="ab" * 32)
RATE_POINTS, BATCH_SIZE, BATCHES = 5, 16, 2000
TAPS = ("y", "x_hat")


def measured(photographs: int) -> dict[str, Any]:
    """Seconds, bytes and memory from a manifest of so many rows to a trial's batches."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        manifest.save(store, PLACE, _rows(photographs), photographs)
        stored = sum(store.sizes("manifests").values())
        before_mb = peak_memory_mb()
        began = time.monotonic()
        rows = manifest.load(store, PLACE)
        loaded_s = time.monotonic() - began
        fit, findings, _ = chosen(rows, MINIMUM_SIDE, frozenset({"00" * DIGEST_BYTES}))
        table = PhotographTable(rows.take(fit))
        chosen_s = time.monotonic() - began - loaded_s
    began = time.monotonic()
    crops = plan_crops(table, Crops(size=128, downscale=(0.6, 1.0)), RATE_POINTS, seed=0)
    plans = (plan_features(crops), plan_features(crops, TEACHER, TAPS))
    planned_s = time.monotonic() - began
    sent = len(pickle.dumps((crops.ordering, *(features.ordering for features in plans))))
    return {
        "photographs": len(table),
        "unfit": len(findings),
        "crops": crops.count,
        "shards": len(crops.shards),
        "manifest_mb": stored / 1e6,
        "manifest_read_s": loaded_s,
        "chosen_s": chosen_s,
        "plan_s": planned_s,
        "peak_mb": peak_memory_mb(),  # of the process, with its libraries
        "peak_before_mb": before_mb,  # the rows that were made up are in it
        "sent_to_a_trial_bytes": sent,
        **_batches(crops.ordering),
        **_shards(crops, plans[1], table),
        **_ledger(plans[1]),
    }


def _rows(photographs: int) -> pa.Table:
    generator = np.random.default_rng(0)
    digests = generator.integers(0, 256, (photographs, DIGEST_BYTES), np.uint8)
    sides = generator.integers(MINIMUM_SIDE, 4000, (2, photographs)).astype(np.int32)
    paths = [
        b"%s/%02d/%03d/%08d.jpg" % (PLACE.encode(), at // 100_000, at // 1000 % 100, at) for at in range(photographs)
    ]
    given = {
        "path": pa.array(paths, pa.binary()),
        "offset": np.zeros(photographs, np.int64),
        "size": np.zeros(photographs, np.int64),
        "width": sides[0],
        "height": sides[1],
        "digest": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(DIGEST_BYTES), photographs, [None, pa.py_buffer(digests)]
        ),
        "bytes": generator.integers(10_000, 1_000_000, photographs),
        "stamp": pa.array([b"%d" % at for at in range(photographs)], pa.binary()),
    }
    columns = [given.get(field.name, pa.nulls(photographs, field.type)) for field in schema()]
    return pa.table(columns, schema=schema())


def _batches(ordering: CropPlan) -> dict[str, float]:
    """One after the other from the start, as a trial reads them."""
    times = []
    for step in range(BATCHES):
        began = time.perf_counter()
        batch_at(ordering, step, BATCH_SIZE, seed=0)
        times.append(1e3 * (time.perf_counter() - began))
    return {
        "batch_ms_median": statistics.median(times),
        "batch_ms_mean": statistics.fmean(times),  # with the orders of passes and windows, which some batches begin
        "batch_ms_most": max(times),
    }


def _shards(crops: CropPlan, features: FeaturePlan, table: PhotographTable) -> dict[str, float]:
    """What a fill draws of a shard: its crops, their photographs, its keys and its record's name."""
    times = []
    for shard in np.linspace(0, len(crops.shards) - 1, 50, dtype=int).tolist():
        began = time.perf_counter()
        found = [table.by_digest[crops.crops[index].photograph] for index in crops.shards[shard]]
        names = [features.key(tap, shard) for tap in features.taps]
        times.append(1e3 * (time.perf_counter() - began))
        assert len(found) == len(crops.shards[shard]) and len(names) == len(TAPS)
    return {"shard_ms_median": statistics.median(times)}


def _ledger(features: FeaturePlan) -> dict[str, Any]:
    """Of one part: its file, and what reading it takes. The entries are made up."""
    shards = range(min(SHARDS_A_PART, len(features.shards), 1024))
    entries: Sequence[Entry] = [Entry(key=f"{shard:064x}", sha256=f"{shard:064x}", bytes=400_000) for shard in shards]
    data = to_json(features, shards, dict.fromkeys(features.taps, entries))
    began = time.monotonic()
    from_json(data)
    share = len(features.parts[0]) / len(shards)
    return {
        "ledgers": len(features.parts),
        "ledger_mb": share * len(data) / 1e6,
        "ledger_read_s": share * (time.monotonic() - began),
    }
