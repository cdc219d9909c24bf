"""Crops a second that a fill gives, beside the teacher's bare forward passes on the same crops."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.pairs import in_turn, ratios, spread
from orchestrator.features.format.key import TeacherWeights, plan_features
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store


def fill_rate(
    store: Store,
    teacher: TeacherWeights,
    photographs: Sequence[Photograph],
    *,
    shard_crops: int,
    size: int,
    rounds: int,
    server: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """`fill` of so many crops a CPU (5 CPUs at most) against as many tasks of one thread that only compute.

    Both run in Ray workers that have the teacher loaded, and pass the same crops through it, `FORWARD_CROPS` at a
    time. The fill finds the pixels in the store and publishes `y` and `x_hat`; a round's fill has a store of its own.
    The store's server (its process id: `server`) is on this machine too; `server_cpu_share` says what it takes of all
    CPUs during a fill.
    A task that only computes has its crops in memory, and only the time between its first and its last crop counts.
    """
    import ray

    from orchestrator.features.fill.fill import fill

    tasks = min(5, int(ray.cluster_resources()["CPU"]))
    count = shard_crops * tasks
    crops = Crops(count=count, size=size)
    plan, other = (plan_crops(photographs, crops, tasks, seed) for seed in (0, 1))
    features = plan_features(plan, teacher)
    pixels = {photograph.digest: photograph for photograph in photographs}
    shards = [(point, ray.put(_cut(plan, ids, pixels))) for point, ids in enumerate(plan.pools)]
    run = ray.remote(num_cpus=1)(forwards)
    places = iter(range(10**6))

    def filling() -> dict[str, float]:
        place = store / f"round-{next(places)}"
        fill(place, plan, [plan_features(plan)], photographs, _silent)
        began, cpu_s = time.perf_counter(), _cpu_s(server)
        fill(place, plan, [features], photographs, _silent)
        seconds = time.perf_counter() - began
        share = (_cpu_s(server) - cpu_s) / seconds / len(os.sched_getaffinity(0))
        return {"crops_per_s": count / seconds, "seconds": seconds, "server_cpu_share": share}

    def computing() -> dict[str, float]:
        answers = ray.get([run.remote(teacher.path, point, shard) for point, shard in shards])
        return {
            "crops_per_s": sum(count / seconds for count, seconds in answers),
            "seconds": max(seconds for _, seconds in answers),
        }

    fill(store / "warm", other, [plan_features(other), plan_features(other, teacher)], photographs, _silent)
    computing()
    measured = in_turn({"fill": filling, "teacher_forward": computing}, rounds, say)
    return {
        "crops": count,
        "tasks": tasks,
        "fill_over_teacher_forward": ratios(measured, "fill", "teacher_forward", "crops_per_s"),
        "server_cpu_share": spread([arms["fill"]["server_cpu_share"] for arms in measured]),
        "rounds": measured,
    }


def forwards(path: str, rate_point: int, pixels: Any) -> tuple[int, float]:
    """Crops and seconds of a teacher's forward passes over uint8 [n, 3, S, S]."""
    import torch

    from orchestrator.features.fill.shard import FORWARD_CROPS

    torch.set_num_threads(1)
    ladder = _ladder(path)
    x = torch.from_numpy(pixels.copy()).float().div(255).contiguous(memory_format=torch.channels_last)
    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(x), FORWARD_CROPS):
            ladder(x[start : start + FORWARD_CROPS], rate_point)
    return len(x), time.perf_counter() - began


@functools.lru_cache(maxsize=2)
def _ladder(path: str) -> Any:
    from models.weights import load_ladder

    return load_ladder(path)


def _cut(plan: Any, ids: Sequence[int], photographs: Mapping[str, Photograph]) -> Any:
    import numpy as np

    from orchestrator.photographs.crops import cut

    crops = [plan.crops[index] for index in ids]
    return np.stack([cut(load_rgb(photographs[crop.photograph]), crop).transpose(2, 0, 1) for crop in crops])


def _cpu_s(pid: int) -> float:
    """Of all threads of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _silent(line: str) -> None:
    """Progress that nobody reads."""
