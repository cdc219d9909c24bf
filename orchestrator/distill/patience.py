"""Counting skipped steps on the device, so that no step waits for the host to know."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = 20  # steps in a row that may be skipped
CHECK_EVERY = 20  # steps: so late a run may end that has lost patience


class Diverged(RuntimeError):
    """Too many steps in a row had a loss or a gradient that is not finite. All ranks raise it at the same step."""


class Patience:
    """Counts the steps that were skipped, and ends a run that has too many of them in a row.

    Args:
        device: where steps are decided.
    """

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)  # in all, in a row, in the longest row
        self._unchecked = self._step = 0
        self._loss_finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    def skipped(self) -> int:
        """Steps that were skipped so far; the host waits for the device."""
        return int(self._counts[0])

    def count(self, step: int, applied: Tensor, loss_finite: Tensor) -> None:
        """Counts a step; every `CHECK_EVERY` steps it is a `check` too.

        Args:
            step: its number.
            applied: whether it was taken, the same on all ranks.
            loss_finite: whether this rank's loss was finite.
        """
        self._step, self._loss_finite = step, loss_finite
        total, in_a_row, longest = self._counts
        skipped = applied.logical_not()
        total.add_(skipped)
        in_a_row.add_(skipped).mul_(skipped)
        torch.maximum(longest, in_a_row, out=longest)
        self._unchecked += 1
        if self._unchecked == CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """The host waits for the device; every rank calls it.

        Raises:
            Diverged: more than `PATIENCE` steps in a row were skipped.
        """
        self._unchecked = 0
        _, in_a_row, longest = self._counts.tolist()
        if longest <= PATIENCE:
            return
        before = in_a_row - 1
        if before < PATIENCE:  # they are over
            raise Diverged(f"{longest} steps in a row before step {self._step} were not finite, and were skipped")
        cause = f"step {self._step}: {self._cause()} is not finite"
        raise Diverged(f"{cause}, as in the {before} steps before it, which were skipped")

    def state(self) -> Tensor:
        """What a checkpoint holds."""
        return self._counts

    def load(self, state: Tensor) -> None:
        """Goes on from what `state` gave."""
        self._counts.copy_(state)
        self._unchecked = 0

    def _cause(self) -> str:
        """What was not finite in the last step, the same on all ranks."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        bad = torch.zeros(dist.get_world_size() if several else 1, device=self._counts.device)
        bad[dist.get_rank() if several else 0] = ~self._loss_finite
        if several:
            dist.all_reduce(bad)
        ranks = ", ".join(str(rank) for rank in bad.nonzero().flatten().tolist())
        return f"the loss of rank {ranks}" if ranks else "a gradient"
