"""A gang: k processes joined in one process group, kept warm across trials.

A sweep ends most trials at their first rungs, so start-up would dominate its cost. A gang imports torch and joins its
process group once; a new trial only rebuilds the model and the engine. The ranks are Ray actors in the bundles of the
trial's placement group, so a gang starts whole or waits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.sweep.cluster import NODE_REPLACEMENT_S
from orchestrator.sweep.gang import memory
from orchestrator.sweep.gang.rank import Driver, OutOfMemory, Rank, RankAddress

START_TIMEOUT_S = NODE_REPLACEMENT_S  # the ranks' imports, and maybe a wait for the replacement of a lost node
FIRST_CALL_TIMEOUT_S = 1800.0  # for the first answer to a method, when the gang's speed is not known yet
# Later answers: TIMEOUT_FACTOR times the slowest so far, plus a margin longer than the retries of a store that cannot
# be reached (store.AWAY_S).
TIMEOUT_FACTOR = 10.0
TIMEOUT_MARGIN_S = 300.0
DEATH_REPORT_S = 5.0  # Ray may report a peer's death, the cause of a rank's exception, this long after the exception
SLICE_S = 2.0  # of training between two checks of whether to stop; a call costs a few milliseconds


class RankError(RuntimeError):
    """A rank raised an exception, `cause`; the message ends with its traceback."""

    cause: BaseException | None = None
    out_of_memory = False


class RankLost(RankError):
    """A rank died or gave no answer; the work may be retried with a new gang."""

    hung = False  # the rank was running and gave no answer


class Gang:
    """k ranks. After a RankError all ranks are killed: one that waits in a collective operation would never return.

    Attributes:
        addresses: of the ranks, rank 0 first.
        pids: process ids of the ranks.
    """

    def __init__(
        self,
        *,
        size: int,
        threads: int,
        driver: Driver,
        gpus: float = 0.0,
        placement_group: PlacementGroup | None = None,
        rank_class: type[Rank] = Rank,
    ) -> None:
        """Start the ranks and join them in a process group.

        Args:
            size: number of ranks.
            threads: CPU threads per rank.
            driver: the ranks end when it does.
            gpus: per rank.
            placement_group: its last `size` bundles are used (Tune leaves out an empty head bundle). None: any node.
            rank_class: the actor's class.

        Raises:
            RankError: a rank did not start, or could not join.
        """
        self._slowest: dict[str, float] = {}  # method -> the most seconds that an answer took, per image if it trains
        self._kernel_kills = memory.kernel_kills()
        self._ranks: list[Any] = []
        offset = len(placement_group.bundle_specs) - size if placement_group else 0
        for rank in range(size):
            strategy: Any = "DEFAULT"
            if placement_group is not None:
                strategy = PlacementGroupSchedulingStrategy(placement_group, placement_group_bundle_index=offset + rank)
            actor = ray.remote(rank_class).options(
                num_cpus=1, num_gpus=gpus, max_restarts=0, scheduling_strategy=strategy
            )
            self._ranks.append(actor.remote(rank, size, threads, driver))
        self.addresses: list[RankAddress] = self.call("address")
        self.pids: list[int] = self.call("join", self.addresses[0].host, self.addresses[0].port)

    @property
    def alive(self) -> bool:
        """Whether the ranks were not killed."""
        return bool(self._ranks)

    def train(self, seen: int, images: int, batch_size: int, stop: Callable[[], bool]) -> int:
        """Train in slices of about SLICE_S, until `images` were seen or `stop` says so between two slices.

        The slices do not change the result: the batch of a step depends on the step's number alone.

        Args:
            seen: images seen before.
            images: images to be seen in all, over all ranks.
            batch_size: images per step, over all ranks.
            stop: asked before every slice.

        Returns:
            Images seen now.

        Raises:
            RankError: see `call`.
        """
        batches = 1
        while seen < images and not stop():
            until = min(images, seen + batches * batch_size)
            began = time.monotonic()
            self.call("train", until, images=until - seen)
            seconds_per_image = (time.monotonic() - began) / (until - seen)
            batches = max(1, int(SLICE_S / seconds_per_image) // batch_size)
            seen = until
        return seen

    def call(self, method: str, *args: Any, images: int = 1) -> list[Any]:
        """Call a method on all ranks; returns their answers, rank 0's first.

        Earlier calls of the method set the timeout.

        Args:
            method: of the rank's class.
            args: for the method.
            images: how many this call trains on; the timeout grows in proportion.

        Raises:
            RankError: as soon as any rank fails; RankLost if a rank died or the time is over.
        """
        slowest = self._slowest.get(method)
        timeout_s = START_TIMEOUT_S if method == "address" else FIRST_CALL_TIMEOUT_S
        if slowest is not None:
            timeout_s = TIMEOUT_MARGIN_S + TIMEOUT_FACTOR * slowest * images
        began = time.monotonic()
        answers = self._collect(
            [getattr(rank, method).remote(*args) for rank in self._ranks], timeout_s, running=method != "address"
        )
        self._slowest[method] = max((time.monotonic() - began) / images, slowest or 0.0)  # students differ in size
        return answers

    def kill(self) -> None:
        """End all ranks at once."""
        ranks, self._ranks = self._ranks, []
        for rank in ranks:
            ray.kill(rank, no_restart=True)

    def _collect(self, references: Sequence[Any], timeout_s: float, *, running: bool) -> list[Any]:
        """The answers in the order of the references. `running`: the ranks run; else they may wait for a node."""
        answers: dict[Any, Any] = {}
        waiting, deadline = list(references), time.monotonic() + timeout_s
        while waiting:
            # one at a time, to see the first failure of any rank at once: its peers would wait for it without end
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                silent = [rank for rank, reference in enumerate(references) if reference in waiting]
                self.kill()
                lost = RankLost(f"rank {silent[0]} of {len(references)} gave no answer within {timeout_s:.0f} s")
                lost.hung = running
                raise lost
            try:
                answers[ready[0]] = ray.get(ready[0])
            except RayError as error:
                failure = self._explain(references, ready[0], error, waiting)
                self.kill()
                raise failure from None
        return [answers[reference] for reference in references]

    def _explain(self, references: Sequence[Any], first: Any, error: Exception, waiting: Sequence[Any]) -> RankError:
        """The error to raise for the first failure. A rank's exception may be caused by a peer's death, so wait a
        little for a report of one."""
        failures = {first: error}
        if isinstance(error, RayTaskError) and waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1, timeout=DEATH_REPORT_S)
            for reference in ended:
                try:
                    ray.get(reference)
                except RayError as other:
                    failures[reference] = other
        for reference, failure in failures.items():
            if not isinstance(failure, RayTaskError) and "creation task" not in str(failure):
                # the text alone: Tune would take an ActorDiedError for the death of the trainable itself
                lost = RankLost(f"rank {references.index(reference)} of {len(references)} died: {_cause(failure)}")
                killed_by_ray = isinstance(failure, OutOfMemoryError)  # Ray kills before the kernel would
                lost.out_of_memory = killed_by_ray or memory.killed(str(failure), self._kernel_kills)
                return lost
        failed = RankError(f"rank {references.index(first)} of {len(references)} failed:\n{_plain(error)}")
        failed.cause = getattr(error, "cause", None)
        failed.out_of_memory = isinstance(failed.cause, OutOfMemory)
        return failed


def _plain(error: Exception) -> str:
    """Ray's text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _cause(error: Exception) -> str:
    """The part of Ray's text that says how a process ended, at most 300 characters."""
    text = " ".join(_plain(error).split())
    detail = re.search(r"Worker exit detail: (.*?)(?: There are some potential| Some common causes|$)", text)
    return (detail[1] if detail else text)[:300]
