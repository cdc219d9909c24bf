"""Ray tasks whose answers are taken as they come, while the driver does something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import ray

from orchestrator.features.fill.fill import answer_of

Key = TypeVar("Key")


class Pending(Generic[Key]):
    """Tasks that run.

    Args:
        tasks: Ray's reference -> what the task is for.
        take: gets that and the task's answer, once for each task.
    """

    def __init__(self, tasks: Mapping[Any, Key], take: Callable[[Key, Any], None]) -> None:
        self._tasks, self._take = dict(tasks), take

    def take_ready(self) -> None:
        """Takes the answers that are there, and waits for none. Raises what a task raised."""
        if self._tasks:
            ready, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            self._take_all(ready)

    def wait(self) -> None:
        """Takes all answers, each as soon as it is there. Raises what a task raised."""
        while self._tasks:
            ready, _ = ray.wait(list(self._tasks), num_returns=1)
            self._take_all(ready)

    def _take_all(self, ready: list[Any]) -> None:
        for reference in ready:
            self._take(self._tasks.pop(reference), answer_of(reference))
