"""Exponential averages of a ladder's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor

from models.ladder import RateLadder


class AveragesState(TypedDict):
    """What a checkpoint holds of averages."""

    values: list[list[Tensor]]  # of each network's parameters, in their order
    steps: Tensor  # that used each network


class Averages:
    """The average of each network's weights over the steps that used it.

    Args:
        ladder: on its device.
        decay: of a step.
    """

    def __init__(self, ladder: RateLadder, decay: float) -> None:
        self._ladder, self._decay = ladder, decay
        self._values = [[value.clone() for value in own] for own in self._raw()]
        device = self._values[0][0].device
        self._steps = torch.zeros(len(self._values), dtype=torch.float64, device=device)  # that used a network

    def _raw(self) -> list[list[Tensor]]:
        return [[parameter.detach() for parameter in network.parameters()] for network in self._ladder.networks]

    def follow(self, network: int, applied: Tensor) -> None:
        """After a step.

        Args:
            network: which one it used, an index.
            applied: whether the step was taken; if not, nothing moves.
        """
        steps, averages = self._steps[network], self._values[network]
        steps.add_(applied)
        # The first averages would be of the initial weights: the decay starts low, as in TensorFlow's
        # ExponentialMovingAverage(num_updates).
        share = (1 - ((1 + steps) / (10 + steps)).clamp(max=self._decay)) * applied
        change = torch._foreach_sub(self._raw()[network], averages)
        torch._foreach_mul_(change, share.to(averages[0].dtype))
        torch._foreach_add_(averages, change)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the ladder has the averages as its weights; the raw ones then come back."""
        parameters = [value for own in self._raw() for value in own]
        raw = [value.clone() for value in parameters]
        torch._foreach_copy_(parameters, [value for own in self._values for value in own])
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, raw)

    def state(self) -> AveragesState:
        """What a checkpoint holds."""
        return {"values": self._values, "steps": self._steps}

    def load(self, state: AveragesState) -> None:
        """Goes on from what `state` gave."""
        for own, saved in zip(self._values, state["values"], strict=True):
            torch._foreach_copy_(own, saved)
        self._steps.copy_(state["steps"])
