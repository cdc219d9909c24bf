"""One side of benchmarks.cache.reader: reads batches as this revision of the code does, whatever it is.

    python -P reader_side.py STORE TEACHER CROPS SIZE

Takes a run a line on stdin, as JSON (see `Run`), and answers each with a line of figures. It uses only what the
revisions that are compared have in common, and imports nothing of benchmarks, which would be the other revision's.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from models.weights import digest, read_metadata
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Crops

BATCH_SIZE = 8
RATE_POINTS = 5
LIMIT_BYTES = 10**11


@dataclass(frozen=True, kw_only=True)
class Run:
    """Batches of a reader of its own.

    Attributes:
        taps: of the teacher, which the store has.
        reads: which of them each step reads.
        steps: how many.
        settling: after so many of them it is counted what is waited for.
        step_s: a device that is simulated takes so long, and the host sleeps meanwhile.
        decoded: folder of a node cache that keeps shards decoded; None: there is none.
        options: of the reader, which this revision has.
    """

    taps: list[str]
    reads: list[str]
    steps: int
    settling: int = 1
    step_s: float = 0.0
    decoded: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def plans(path: str, crops: int, size: int, taps: list[str]) -> tuple[CropPlan, FeaturePlan, FeaturePlan]:
    """A plan of photographs that do not exist: a reader does not look at them."""
    names = [hashlib.sha256(f"photograph {index}".encode()).hexdigest() for index in range(100)]
    photographs = [Photograph(path=name, digest=name, width=2 * size, height=2 * size) for name in names]
    plan = plan_crops(photographs, Crops(count=crops, size=size), RATE_POINTS, seed=0)
    described = read_metadata(path)
    teacher = TeacherWeights(
        name="teacher", path=path, digest=digest(path), kind=described.kind, family=described.family
    )
    return plan, plan_features(plan), plan_features(plan, teacher, taps)


def figures(run: Run, store: str, plan: CropPlan, pixels: FeaturePlan, features: FeaturePlan) -> dict[str, float]:
    """Of all steps CPU time, over all threads, from the reader's opening on."""
    options = dict(run.options)
    if run.decoded is not None:
        options["cache"] = NodeCache(run.decoded, LIMIT_BYTES, decoded=True)
    cpu, began = time.process_time(), time.perf_counter()
    reader = Reader(
        store,
        plan,
        (pixels, features),
        rank=0,
        world=1,
        batch_size=BATCH_SIZE,
        seed=0,
        taps_at=lambda step: run.reads,
        **options,
    )
    waited, settled = 0.0, began
    for step in range(run.steps):
        if step == run.settling:
            waited, settled = reader.waited_s, time.perf_counter()
        reader.batch(step)
        if run.step_s:
            time.sleep(run.step_s)
    ended, cpu_s = time.perf_counter(), time.process_time() - cpu
    crops, waited_s, read_bytes = run.steps * BATCH_SIZE, reader.waited_s, reader.read_bytes
    reader.close()
    return {
        "crops_a_cpu_s": crops / cpu_s,
        "crops_a_s": crops / (ended - began),
        "data_wait_share": (waited_s - waited) / (ended - settled),
        "settling_s": settled - began,
        "settling_waited_s": waited,
        "read_bytes": read_bytes,
    }


def main() -> None:
    store, teacher, crops, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    for line in sys.stdin:
        run = Run(**json.loads(line))
        print(json.dumps(figures(run, store, *plans(teacher, crops, size, run.taps))), flush=True)


if __name__ == "__main__":
    main()
