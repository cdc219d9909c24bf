"""Between a teacher's workers and their driver: lines for the user, and the notice to leave. A Ray actor."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.sweep.gang.notices import SEND_TIMEOUT_S


class Desk:
    """A handle for the driver and for rank 0; picklable."""

    def __init__(self, actor: Any) -> None:
        self._actor, self._told = actor, 0

    @classmethod
    def start(cls) -> Desk:
        """Start the actor. The driver calls this: the actor runs on the driver's node and ends with the driver."""
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=this_node).remote())

    def say(self, line: str) -> None:
        """A line for the user. Raises RayError."""
        ray.get(self._actor.say.remote(line))

    def leaving(self) -> bool:
        """Whether the driver leaves. Raises RayError."""
        answer: bool = ray.get(self._actor.leaving.remote())
        return answer

    def leave(self) -> None:
        """The driver leaves. Raises RayError: the actor gave no answer within SEND_TIMEOUT_S."""
        ray.get(self._actor.leave.remote(), timeout=SEND_TIMEOUT_S)

    def lines(self) -> list[str]:
        """What was said since this handle's last call. Raises RayError."""
        new: list[str] = ray.get(self._actor.lines.remote(self._told))
        self._told += len(new)
        return new


class _Desk:
    """The actor behind `Desk`."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._leaving = False

    def say(self, line: str) -> None:
        self._lines.append(line)

    def lines(self, after: int) -> list[str]:
        return self._lines[after:]

    def leave(self) -> None:
        self._leaving = True

    def leaving(self) -> bool:
        return self._leaving
