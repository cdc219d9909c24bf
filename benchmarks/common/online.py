"""Readers that the cache is compared with: crops cut when they are asked for, and a teacher that runs in the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.ladder import RateLadder
from orchestrator.distill.loop import Reader
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.prefetch import Prefetcher
from orchestrator.photographs.crops import CropPlan, batch_at, cut
from orchestrator.photographs.photos import Photograph, load_rgb


class CuttingReader:
    """The batches of a crop plan as `features.reader.Reader` gives them to one rank of one, cut from photographs that
    are held in memory; the next batch is cut while a step computes. No store, no targets.
    """

    def __init__(self, photographs: Sequence[Photograph], plan: CropPlan, *, batch_size: int, seed: int) -> None:
        self._by_digest = {photograph.digest: photograph for photograph in photographs}
        self._plan, self._batch_size, self._seed = plan, batch_size, seed
        self._load = lru_cache(maxsize=None)(load_rgb)
        self._prefetcher = Prefetcher(self._cut)

    def batch(self, step: int) -> Batch:
        return self._prefetcher.batch(step)

    def close(self) -> None:
        self._prefetcher.close()

    def _cut(self, step: int) -> Batch:
        rate_point, ids = batch_at(self._plan, step, self._batch_size, self._seed)
        crops = [self._plan.crops[index] for index in ids]
        pixels = np.stack([cut(self._load(self._by_digest[crop.photograph]), crop) for crop in crops])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)
        return Batch(x=x, rate_point=rate_point, crops=ids)


class OnlineReader:
    """Batches of another reader with the teacher's exact outputs, by a forward pass (fp32, no gradients) in the step.

    Args:
        reader: gives pixels; its targets are dropped.
        teacher: in eval mode.
    """

    def __init__(self, reader: Reader, teacher: RateLadder) -> None:
        self._reader, self._teacher = reader, teacher

    def batch(self, step: int) -> Batch:
        batch = self._reader.batch(step)
        output = forward(self._teacher, batch)
        # Copies: autograd keeps targets for the backward pass, and refuses tensors made in inference mode.
        targets = {"y": output["y"].clone(), "x_hat": output["x_hat"].clamp(0, 1)}
        return replace(batch, targets=targets)


def forward(teacher: RateLadder, batch: Batch) -> dict[str, Any]:
    """The teacher's outputs for a batch, tensors of inference mode."""
    with torch.inference_mode():
        x = batch.x.contiguous(memory_format=torch.channels_last)  # as a fill does; a third faster on a CPU
        output: dict[str, Any] = teacher(x, batch.rate_point)
    return output


class ExactReader:
    """What `OnlineReader` gives, for a plan whose crops come again: what the teacher said of a crop is kept (fp32)."""

    def __init__(self, photographs: Sequence[Photograph], plan: CropPlan, teacher: RateLadder, **order: int) -> None:
        self._pixels = CuttingReader(photographs, plan, **order)
        self._online = OnlineReader(self._pixels, teacher)
        self._plan, self._order = plan, order
        self._said: dict[int, dict[str, Tensor]] = {}

    def batch(self, step: int) -> Batch:
        _, ids = batch_at(self._plan, step, **self._order)
        if all(index in self._said for index in ids):
            batch = self._pixels.batch(step)
            targets = {name: torch.stack([self._said[index][name] for index in ids]) for name in ("y", "x_hat")}
            return replace(batch, targets=targets)
        batch = self._online.batch(step)
        for row, index in enumerate(ids):
            self._said[index] = {name: values[row] for name, values in batch.targets.items()}
        return batch
