"""A process and all that it started, watched from outside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import psutil

from testing.watch import every


def members(root: int) -> list[psutil.Process]:
    """The process and all below it; none if it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def titled(root: int, titles: tuple[str, ...]) -> list[psutil.Process]:
    """Those whose command line begins with one of these, such as `ray::Rank`, oldest first."""
    processes = []
    for process in members(root):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(titles):
                processes.append(process)
    return sorted(processes, key=lambda process: process.pid)


class CpuTime:
    """CPU seconds that a tree of processes has used so far, those that ended meanwhile included.

    What a process uses after the last look at it is missed: at most `every_s` of each.
    """

    def __init__(self, root: int, every_s: float = 0.5) -> None:
        self._root, self._every_s = root, every_s
        self._of: dict[psutil.Process, float] = {}  # told apart by process id and start
        self._at: list[float] = []
        self._used: list[float] = []

    @contextmanager
    def sampled(self) -> Iterator[CpuTime]:
        with every(self._every_s, self._look):
            yield self

    def between(self, begin: float, end: float) -> float:
        """CPU seconds between two moments, in seconds since the epoch."""
        before, after = np.interp([begin, end], self._at, self._used)
        return float(after - before)

    @property
    def so_far(self) -> float:
        """CPU seconds at the last look."""
        return self._used[-1] if self._used else 0.0

    def _look(self) -> None:
        for process in members(self._root):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._of[process] = times.user + times.system
        self._at.append(time.time())
        self._used.append(sum(self._of.values()))
