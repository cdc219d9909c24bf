"""Reading the next batches while the current one is trained on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from orchestrator.features.read.batch import Batch

DEPTH = 4  # batches


class Prefetcher:
    """A thread that reads the batches of the next steps.

    Args:
        read: makes a step's batch; called by this thread only, for rising steps while they are asked for in order.

    Attributes:
        waited_s: seconds that `batch` has waited for the thread so far.
    """

    def __init__(self, read: Callable[[int], Batch]) -> None:
        self._read, self._thread = read, ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: dict[int, Future[Batch]] = {}
        self.waited_s = 0.0

    def batch(self, step: int) -> Batch:
        """The batch of a step. Raises what `read` raises for it."""
        if step not in self._coming:  # the first step, or not the one expected
            self._forget()
        for coming in range(step, step + DEPTH + 1):
            if coming not in self._coming:
                self._coming[coming] = self._thread.submit(self._read, coming)
        began = time.monotonic()
        try:
            return self._coming.pop(step).result()
        except BaseException:
            self._forget()  # the next batches would fail in the same way
            raise
        finally:
            self.waited_s += time.monotonic() - began

    def _forget(self) -> None:
        for future in self._coming.values():
            future.cancel()
        self._coming = {}

    def close(self) -> None:
        """Ends the thread and drops what it has read ahead."""
        self._thread.shutdown(wait=True, cancel_futures=True)
