"""What a sweep tells its trials while they train: to save and stop, and which nodes are draining.

One Ray actor per sweep polls Ray's nodes once a second. Trials on any node wait for its answer (a long poll), and do
not poll Ray or the store themselves.
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

POLL_S = 1.0  # between two polls of Ray's nodes
SEND_TIMEOUT_S = 5.0  # for the actor to take a message
LONG_POLL_S = 60.0  # a waiting trial gets an answer after this time in any case, which shows that the actor lives
MAX_WAITING_TRIALS = 10_000  # at a time; Ray's default is 1,000 calls


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The present state; every change increments the number."""

    number: int = 0
    leave: bool = False  # save a checkpoint and stop training
    draining: frozenset[str] = frozenset()  # ids of the nodes that will go away soon


class Notices:
    """A handle to the sweep's notice, for its driver and its trials; picklable."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(cls) -> Notices:
        """Start the actor. The driver calls this: the actor runs on the driver's node and ends with the driver."""
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": MAX_WAITING_TRIALS, "scheduling_strategy": this_node}
        actor = ray.remote(_Board).options(**options).remote()
        actor.poll.remote()
        return cls(actor)

    def leave(self) -> None:
        """Tell all trials to save a checkpoint and to stop training.

        Raises RayError: the actor gave no answer within SEND_TIMEOUT_S.
        """
        ray.get(self._actor.leave.remote(), timeout=SEND_TIMEOUT_S)

    def after(self, number: int) -> Notice:
        """Wait until the notice has another number than this one, at most LONG_POLL_S. Returns the present notice.

        Raises RayError: the actor is gone.
        """
        notice: Notice = ray.get(self._actor.after.remote(number))
        return notice


class _Board:
    """The Ray actor behind `Notices`."""

    def __init__(self) -> None:
        self._notice = Notice()
        self._changed = asyncio.Condition()

    async def poll(self) -> None:
        """Keep `draining` up to date; never returns."""
        while True:
            with suppress(RayError):  # Ray's head node cannot be reached: keep the last state
                await self._change(draining=await asyncio.to_thread(draining))
            await asyncio.sleep(POLL_S)

    async def leave(self) -> None:
        await self._change(leave=True)

    async def after(self, number: int) -> Notice:
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._notice.number != number), LONG_POLL_S)
        return self._notice

    async def _change(self, **fields: Any) -> None:
        async with self._changed:
            if replace(self._notice, **fields) != self._notice:
                self._notice = replace(self._notice, number=self._notice.number + 1, **fields)
                self._changed.notify_all()
