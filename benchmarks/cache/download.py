"""How fast shards come from S3 onto this node: a reader's way, and boto3's alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common.pairs import in_turn, ratios
from orchestrator.features.format.key import FeaturePlan
from orchestrator.features.format.ledger import Entry, read_ledger
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.reader import DOWNLOADS
from orchestrator.store.store import Store

TIMES = 10  # that all objects are read for one figure: once takes a tenth of a second
LIMIT_BYTES = 100 * 10**9  # of a node cache: nothing is evicted here


def objects(store: Store, plans: Sequence[FeaturePlan]) -> list[tuple[str, Entry]]:
    """Name and ledger entry of everything that some filled feature plans hold."""
    listed = []
    for features in plans:
        ledger = read_ledger(store, features)
        assert ledger is not None, f"{features.title} is not filled in"
        listed += [(features.object(tap, shard), e) for tap in features.taps for shard, e in enumerate(ledger[tap])]
    return listed


def bring(store: Store, wanted: Sequence[tuple[str, Entry]], folder: Path) -> None:
    """Brings objects into the node cache in a folder as a reader does: `Store.read`, the digest checked, a file
    written, by `DOWNLOADS` threads.
    """
    cache = NodeCache(folder, LIMIT_BYTES)

    def one(name: str, entry: Entry) -> None:
        cache.open(entry.sha256, entry.bytes, lambda: store.read(name, checksum=False)).close()

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for future in [pool.submit(one, *item) for item in wanted]:
            future.result()


def read_rate(
    store: Store, plans: Sequence[FeaturePlan], client: Any, folder: Path, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """MB/s of `bring` into an empty folder over MB/s of `get_object` of the same objects by as many threads, which
    checks and keeps nothing. Both are run once before, uncounted.

    Args:
        client: a boto3 client of the same server.
    """
    wanted = objects(store, plans)
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    size = sum(entry.bytes for _, entry in wanted)

    def ours() -> dict[str, float]:
        seconds = 0.0
        for _ in range(TIMES):
            began = time.perf_counter()
            bring(store, wanted, folder)
            seconds += time.perf_counter() - began
            shutil.rmtree(folder)
        return {"MB_per_s": TIMES * size / 1e6 / seconds, "seconds": seconds}

    def plain() -> dict[str, float]:
        def one(name: str) -> int:
            return len(client.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read())

        total, began = 0, time.perf_counter()
        for _ in range(TIMES):
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                total += sum(pool.map(one, [name for name, _ in wanted]))
        seconds = time.perf_counter() - began
        assert total == TIMES * size
        return {"MB_per_s": total / 1e6 / seconds, "seconds": seconds}

    ours(), plain()
    measured = in_turn({"reader": ours, "boto3": plain}, rounds, say)
    return {
        "objects": len(wanted),
        "MB": size / 1e6,
        "threads": DOWNLOADS,
        "read_over_boto3": ratios(measured, "reader", "boto3", "MB_per_s"),
        "rounds": measured,
    }
