"""The loss terms of a segment, summed where they are computed and fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from orchestrator.distill.averages import AveragesState


class Segment(TypedDict, total=False):
    """What a checkpoint holds of a segment that is not finished; the same on every rank. Empty: none of it."""

    sums: dict[str, float]  # of each loss term over the segment's steps, the mean over the ranks
    counts: dict[str, int]  # steps that had the term
    skipped_before: int  # steps that were skipped before the segment


class EngineState(TypedDict):
    """What a checkpoint holds beside weights and their moments; the same on every rank."""

    aux_optimizer: Any  # torch's
    quantiles: list[Tensor]
    averages: AveragesState | None
    skipped: Tensor
    images_seen: int
    segment: Segment


class Terms:
    """Sums of loss terms over the steps of a segment.

    Args:
        before: of a segment that goes on.
    """

    def __init__(self, before: Segment | None = None) -> None:
        self._sums = dict((before or {}).get("sums", {}))
        self._counts = dict((before or {}).get("counts", {}))
        # Names that come together, in one tensor -> sums [names] and the number of steps, on the device.
        self._totals: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    def add(self, of_micro: Sequence[Mapping[str, Tensor]], applied: Tensor) -> None:
        """Adds a step. Every term is a mean over crops. Those of a skipped step may not be finite, and are left out.

        Args:
            of_micro: the terms of each micro-batch, scalars.
            applied: whether the step was taken.
        """
        names = tuple(of_micro[0])
        values = torch.stack([micro[name].detach() for micro in of_micro for name in names])
        if len(of_micro) > 1:
            values = values.view(len(of_micro), len(names)).mean(dim=0)
        if names not in self._totals:
            self._totals[names] = torch.zeros_like(values), torch.zeros_like(applied, dtype=torch.float64)
        sums, count = self._totals[names]
        sums.add_(torch.where(applied, values, 0))
        count.add_(applied)

    def fetched(
        self, mean: Callable[[Tensor], Tensor] = lambda values: values
    ) -> tuple[dict[str, float], dict[str, int]]:
        """Sums of the terms that any step had, and how many had them; the host waits for the device.

        Args:
            mean: over the ranks, of a tensor; all of them call this then.
        """
        sums, counts = dict(self._sums), dict(self._counts)
        if not self._totals:
            return sums, counts
        totals, steps = zip(*self._totals.values(), strict=True)
        values = torch.cat((mean(torch.cat(totals)).double(), torch.stack(steps))).tolist()
        names = [(name, index) for index, together in enumerate(self._totals) for name in together]
        for (name, index), value in zip(names, values, strict=False):
            if count := int(values[len(names) + index]):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + count
        return sums, counts
