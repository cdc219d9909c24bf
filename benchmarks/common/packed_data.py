"""Batches for `benchmarks.common.packed`: one that is always the same, or those of a store, filled without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from benchmarks.common.facts import TRAIN, WEIGHTS, photographs, teacher_of
from models.weights import WeightsDescription, read_metadata
from orchestrator.distill.targets import taps
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import FeaturePlan, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.features.read.batch import Batch
from orchestrator.photographs.crops import CropPlan, cut, plan_crops
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

Source = Literal["device", "host", "reader"]
TEACHER = str(WEIGHTS / "teacher-hyperprior.safetensors")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process trains, and from where its batches come."""

    device: str  # cpu | cuda
    family: str
    N: int
    batch: int  # crops
    side: int  # pixels
    seconds: float
    precision: Literal["fp32", "bf16"]
    compiler: str | None = None  # of `RateLadder.compile_transforms`
    # device: one batch that lies there | host: one that is copied in every step | reader: of the store in `folder`
    source: Source = "device"
    folder: str = ""


class Batches(Protocol):
    """What a loop reads, and how long it has waited for it."""

    @property
    def waited_s(self) -> float: ...
    def batch(self, step: int) -> Batch: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Crops of the photographs in the repository, and what is stored of them."""

    photographs: tuple[Photograph, ...]
    crops: CropPlan
    pixels: FeaturePlan
    features: FeaturePlan

    @classmethod
    def of(cls, count: int, side: int) -> Planned:
        """`count` crops of `side` pixels."""
        described, teacher = read_metadata(TEACHER), teacher_of(TEACHER)
        chosen = photographs([TRAIN], side)
        crops = plan_crops(chosen, Crops(count=count, size=side), len(described.lambdas), seed=0)
        read = taps(
            [(Loss(preset="prim-l1"), "hyperprior")], teacher=teacher.family, rate_points=len(described.lambdas)
        )
        return cls(
            photographs=chosen,
            crops=crops,
            pixels=plan_features(crops),
            features=plan_features(crops, teacher, read),
        )


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A task that fills a store with what the readers read; the teacher runs on the first GPU, if there is any."""

    folder: str
    count: int
    side: int

    def run(self, pipe: Connection) -> dict[str, Any]:
        """Returns the number of crops."""
        pipe.send("warm")
        pipe.recv()
        store, planned = Store(self.folder), Planned.of(self.count, self.side)
        by_digest = {photograph.digest: photograph for photograph in planned.photographs}
        for features in (planned.pixels, planned.features):
            made = {}
            pixels = planned.pixels if features.teacher else None
            for shard in range(len(features.shards)):
                filled = fill_shard(store, ShardWork.of(planned.crops, features, shard, by_digest, pixels=pixels))
                if filled is None:
                    raise RuntimeError(f"shard {shard} is being filled by another process")
                made[shard] = filled.entries
            publish_ledger(store, features, made)
        return {"crops": len(planned.crops.crops)}


def open_batches(task: Task) -> tuple[Batches, WeightsDescription]:
    """The batches of a task, and what the teacher is that their targets are of."""
    described = read_metadata(TEACHER)
    if task.source != "reader":
        return _Same(task, described), described
    from orchestrator.features.read.reader import Reader

    planned = Planned.of(_stored(task), task.side)
    reader = Reader(
        Store(task.folder).url,
        planned.crops,
        (planned.pixels, planned.features),
        rank=0,
        world=1,
        batch_size=task.batch,
        seed=0,
    )
    return reader, described


def _stored(task: Task) -> int:
    """Crops in the store of a task: its folder's name has the number."""
    return int(task.folder.rpartition("-")[2])


class _Same:
    """One batch of real crops for every step, its targets drawn at random; on the device, or copied there each time."""

    waited_s = 0.0

    def __init__(self, task: Task, described: WeightsDescription) -> None:
        import numpy as np
        import torch

        planned = Planned.of(max(task.batch * len(described.lambdas), 8), task.side)
        by_digest = {photograph.digest: photograph for photograph in planned.photographs}
        crops = planned.crops.crops[: task.batch]
        pixels = np.stack([cut(load_rgb(by_digest[crop.photograph]), crop) for crop in crops])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)
        y = torch.randn(task.batch, described.M, task.side // 16, task.side // 16)
        held = task.device if task.source == "device" else "cpu"
        self._x, self._targets = x.to(held), {"y": y.to(held), "x_hat": x.to(held)}
        self._rates, self._crops = len(described.lambdas), tuple(range(task.batch))

    def batch(self, step: int) -> Batch:
        return Batch(x=self._x, rate_point=step % self._rates, crops=self._crops, targets=self._targets)

    def close(self) -> None:
        del self._x, self._targets
