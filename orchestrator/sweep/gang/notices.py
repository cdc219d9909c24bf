"""What a sweep tells its trials while they train: that it is to leave, and which nodes are about to go.

One Ray actor a sweep looks at Ray, once a second. Trials wait for its answer, on whatever node they are; none of them
asks Ray or the store by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.sweep.cluster import draining

LOOK_S = 1.0  # between two looks at Ray's nodes
TELL_S = 5.0  # for the actor to take what it is told
ANSWER_S = 60.0  # after so long the waiting get an answer in any case, which shows that the actor lives
TRIALS = 10_000  # that may wait at a time; Ray's own bound is 1,000


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What trials are to know; each change has the next number."""

    number: int = 0
    leave: bool = False  # save what there is, and train no more
    draining: frozenset[str] = frozenset()  # ids of the nodes that are about to go


class Notices:
    """The sweep's notice, as its driver and its trials see it; picklable."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(cls) -> Notices:
        """On this node: it lives as long as the driver, which calls this, and no longer."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": TRIALS, "scheduling_strategy": here}
        actor = ray.remote(_Board).options(**options).remote()
        actor.look.remote()
        return cls(actor)

    def leave(self) -> None:
        """Tell all trials to save what they have and to train no more. Raises RayError."""
        ray.get(self._actor.leave.remote(), timeout=TELL_S)

    def after(self, number: int) -> Notice:
        """Waits until the notice is another than that of this number, for a minute at most. Raises RayError."""
        notice: Notice = ray.get(self._actor.after.remote(number))
        return notice


class _Board:
    """The actor."""

    def __init__(self) -> None:
        self._notice = Notice()
        self._changed = asyncio.Condition()

    async def look(self) -> None:
        """For ever."""
        while True:
            with suppress(RayError):  # Ray's head is away: nothing is known
                await self._change(draining=await asyncio.to_thread(draining))
            await asyncio.sleep(LOOK_S)

    async def leave(self) -> None:
        await self._change(leave=True)

    async def after(self, number: int) -> Notice:
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._notice.number != number), ANSWER_S)
        return self._notice

    async def _change(self, **fields: Any) -> None:
        async with self._changed:
            if replace(self._notice, **fields) != self._notice:
                self._notice = replace(self._notice, number=self._notice.number + 1, **fields)
                self._changed.notify_all()
