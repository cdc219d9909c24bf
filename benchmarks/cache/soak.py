"""Many small crops written to a real S3 server (SeaweedFS) on loopback, and read once by four processes.

    python -m benchmarks.cache.soak [--crops 200000] [--photographs FOLDER ...]

Pixels and a teacher's `y` and `x_hat` are filled in; then each reader, one rank of four on one node with one node
cache, reads every batch of its rank of one pass over the plan, and nothing is trained. Figures:

    fill      time, MB/s and crops/s, bytes by tap
    read      time, MB/s (as stored) and crops/s of all readers together; requests a crop, counted at the HTTP clients
              of the readers, repetitions included; evictions make the node cache ask again for what it dropped
    memory    resident MiB of each reader over time, and its median in the last quarter of the samples over that in
              the first: flat is 1. A reader's decoded crops are bounded by --memory-mb, reached early in a run
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cache.download import objects
from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, WEIGHTS, facts, photographs, teacher_of, write
from benchmarks.common.process import workers
from orchestrator.features.format.key import FeaturePlan, plan_features
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from testing.watch import Memory, Requests

if TYPE_CHECKING:  # it imports Ray, which readers' memory shall not have
    from orchestrator.features.fill.fill import FillReport

RANKS, RATE_POINTS, SIZE = 4, 5, 64
SAMPLE_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    from orchestrator.sweep.cluster import connected
    from testing.servers import SeaweedFS

    options = _options().parse_args(argv)
    if options.crops % (RATE_POINTS * options.batch_size):
        raise SystemExit(f"--crops {options.crops}: not a multiple of {RATE_POINTS} batches of {options.batch_size}")
    machine = facts()
    chosen = photographs(options.photographs, SIZE)
    with tempfile.TemporaryDirectory(prefix="bench-soak-", dir=options.work) as name:
        folder = Path(name)
        with SeaweedFS(folder / "server") as server:
            os.environ |= server.environment
            store = Store(f"s3://{server.bucket}/soak")
            began = time.monotonic()
            plan = plan_crops(chosen, Crops(count=options.crops, size=SIZE), RATE_POINTS, seed=0)
            plans = (plan_features(plan), plan_features(plan, teacher_of(options.teacher)))
            planned_s = time.monotonic() - began
            with connected():
                from orchestrator.features.fill.fill import fill

                reports = [fill(store, plan, [features], chosen, _Rarely()) for features in plans]
            sizes = _sizes(store, plans)
            _say(f"filled in {sum(report.seconds for report in reports):.0f} s, {sum(sizes.values()) / 1e6:.0f} MB")
            readers = _read(options, store, plan, plans, folder / "node")
    figures = {
        "settings": _settings(options, len(chosen), len(plan.shards)),
        "plan": {"seconds": planned_s},
        "fill": _fill_figures(plan, plans, reports, sizes),
        **_read_figures(readers, len(plan.crops), sum(sizes.values())),
        "readers": readers,
    }
    write(options.results, "soak", machine, figures)
    _say(f"read in {figures['read']['seconds']:.0f} s, {figures['read']['requests_a_crop']:.4f} requests a crop")
    growth = figures["memory"]["last_over_first_quarter"]
    _say("memory, last quarter over first: " + ", ".join(f"{ratio:.3f}" for ratio in growth))
    return 0


def _settings(options: argparse.Namespace, photographs: int, shards: int) -> dict[str, Any]:
    return {
        "photographs": photographs,
        "crops": options.crops,
        "crop_size": SIZE,
        "shards": shards,
        "teacher": Path(options.teacher).name,
        "ranks": RANKS,
        "batch_size": options.batch_size,
        "node_cache_mb": options.node_cache_mb,
        "memory_mb": options.memory_mb,
    }


def _fill_figures(
    plan: CropPlan, plans: Sequence[FeaturePlan], reports: Sequence[FillReport], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Of the two fills, by whose features they are: `pixels` and the teacher's name."""
    return {
        "bytes_by_tap": sizes,
        "objects": sum(len(features.taps) for features in plans) * len(plan.shards),
        **{
            features.title.partition(" ")[0]: {
                "seconds": report.seconds,
                "MB_per_s": report.bytes / 1e6 / report.seconds,
                "crops_per_s": len(plan.crops) / report.seconds,
            }
            for features, report in zip(plans, reports, strict=True)
        },
    }


def _read_figures(readers: Sequence[Mapping[str, Any]], crops: int, total_bytes: int) -> dict[str, Any]:
    """Of all readers together, from the first one's begin to the last one's end."""
    seconds = max(reader["ended"] for reader in readers) - min(reader["began"] for reader in readers)
    requests = sum(reader["requests"] for reader in readers)
    return {
        "read": {
            "seconds": seconds,
            "MB_per_s": total_bytes / 1e6 / seconds,
            "crops_per_s": crops / seconds,
            "requests": requests,
            "requests_a_crop": requests / crops,
        },
        "memory": {
            "last_over_first_quarter": [reader["last_over_first_quarter"] for reader in readers],
            "peak_mib": [max(mib for _, mib in reader["resident_mib"]) for reader in readers],
        },
    }


def _read(
    options: argparse.Namespace, store: Store, plan: CropPlan, plans: Sequence[FeaturePlan], cache: Path
) -> list[dict[str, Any]]:
    """What each reader has of its pass."""
    began = time.monotonic()
    with workers(RANKS) as pool:
        running = [
            pool.submit(
                read_once,
                store.url,
                plan,
                tuple(plans),
                rank=rank,
                batch_size=options.batch_size,
                cache=str(cache),
                cache_bytes=options.node_cache_mb * 10**6,
                memory_bytes=options.memory_mb * 10**6,
            )
            for rank in range(RANKS)
        ]
        readers = [future.result() for future in running]
    _say(f"readers, their starts included: {time.monotonic() - began:.0f} s")
    return readers


def read_once(
    url: str,
    plan: CropPlan,
    plans: tuple[FeaturePlan, ...],
    *,
    rank: int,
    batch_size: int,
    cache: str,
    cache_bytes: int,
    memory_bytes: int,
) -> dict[str, Any]:
    """One reader's pass, in a process of its own."""
    import torch

    from orchestrator.features.read.node_cache import NodeCache
    from orchestrator.features.read.reader import Reader

    torch.set_num_threads(1)
    steps, seen, began = len(plan.crops) // batch_size, 0, time.time()
    with Requests().counting() as requests, Memory(SAMPLE_S).sampled() as memory:
        reader = Reader(
            url,
            plan,
            plans,
            rank=rank,
            world=RANKS,
            batch_size=batch_size,
            seed=0,
            cache=NodeCache(cache, cache_bytes),
            memory_bytes=memory_bytes,
        )
        for step in range(steps):
            seen += len(reader.batch(step).x)
            if rank == 0 and (step + 1) % max(1, steps // 20) == 0:
                mib = memory.samples[-1][1]
                _say(f"reader 0: step {step + 1}/{steps}, {time.time() - began:.0f} s, {mib:.0f} MiB resident")
        ended = time.time()
        reader.close()
    quarter = max(1, len(memory.samples) // 4)
    resident = [mib for _, mib in memory.samples]
    first, last = statistics.median(resident[:quarter]), statistics.median(resident[-quarter:])
    return {
        "rank": rank,
        "crops": seen,
        "began": began,
        "ended": ended,
        "requests": requests.count,
        "waited_s": reader.waited_s,
        "first_quarter_mib": first,
        "last_quarter_mib": last,
        "last_over_first_quarter": last / first,
        "resident_mib": memory.samples,
    }


def _sizes(store: Store, plans: Sequence[FeaturePlan]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for features in plans:
        for name, entry in objects(store, [features]):
            tap = next(tap for tap in features.taps if name.startswith(features.folder(tap) + "/"))
            sizes[tap] = sizes.get(tap, 0) + entry.bytes
    return sizes


class _Rarely:
    """Prints a line of progress at most every 20 s."""

    def __init__(self) -> None:
        self._spoken = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() - self._spoken > 20:
            self._spoken = time.monotonic()
            _say(line)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--crops", type=count, default=200_000)
    add("--teacher", default=str(WEIGHTS / "teacher-hyperprior.safetensors"))
    add("--batch-size", type=count, default=64, help="over all readers")
    add("--node-cache-mb", type=count, default=1000, help="less than the plan has: shards are evicted")
    add("--memory-mb", type=count, default=64, help="of decoded crops, a reader")
    add("--work", default=None, metavar="FOLDER", help="for the server's data and the node cache")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
