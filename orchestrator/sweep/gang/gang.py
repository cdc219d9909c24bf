"""k processes joined in one process group, kept warm across trials.

A sweep ends most trials at their first rungs, so start-up is what it would pay most. A gang imports torch and joins its
process group once; a new trial only rebuilds model and engine. Its ranks are Ray actors in the bundles of the trial's
placement group: a gang starts whole or waits.
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

from orchestrator.sweep.cluster import REPLACEMENT_S
from orchestrator.sweep.gang import memory
from orchestrator.sweep.gang.rank import Driver, OutOfMemory, Rank, RankAddress

START_BOUND_S = REPLACEMENT_S  # for the ranks' imports, and the place of a rank may be on a node that is lost
FIRST_BOUND_S = 1800.0  # for a first answer, when nothing is known of the gang's pace
# On top of PATIENCE times what the answer took before: more than a store that is away is waited for (store.AWAY_S).
SLACK_S = 300.0
PATIENCE = 10.0
DEATH_REPORT_S = 5.0  # after a rank's exception: its peer's death, which may be the cause, is reported that late
SLICE_S = 2.0  # of training, between two looks at whether to go on; a call costs some milliseconds


class RankError(RuntimeError):
    """A rank raised `cause`; the message ends with its traceback."""

    cause: BaseException | None = None
    out_of_memory = False


class RankLost(RankError):
    """A rank died or gave no answer: the work may be tried again with a new gang."""

    hung = False  # it gave no answer


class Gang:
    """k ranks. After a RankError the gang is gone: its ranks are killed, for one that waits in a collective never
    returns."""

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
        """Starts the ranks and joins them.

        Args:
            size: number of ranks.
            threads: CPU threads a rank.
            driver: the ranks end when it does.
            gpus: a rank.
            placement_group: its last `size` bundles are taken (Tune leaves out an empty head bundle); None: anywhere.

        Raises:
            RankError: a rank did not start.
        """
        self._slowest: dict[str, float] = {}  # method -> seconds that an answer took, or a second an image; see `call`
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
        return bool(self._ranks)

    def train(self, seen: int, images: int, batch_size: int, stop: Callable[[], bool]) -> int:
        """Train in slices of about SLICE_S, from `seen` to `images`, or until `stop` between two of them.

        Slices change no result: the batch of a step is a function of the step.

        Returns:
            Images seen.

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
        """All ranks' answers, rank 0's first.

        Args:
            images: how many are trained on by this call; its time is in proportion to them. What the gang took for
                others of this method bounds how long an answer may take.

        Raises:
            RankError: as soon as any rank fails; RankLost if one died or the bound has passed.
        """
        slowest = self._slowest.get(method)
        bound = START_BOUND_S if method == "address" else FIRST_BOUND_S
        if slowest is not None:
            bound = SLACK_S + PATIENCE * slowest * images
        began = time.monotonic()
        answers = self._collect(
            [getattr(rank, method).remote(*args) for rank in self._ranks], bound, began=method != "address"
        )
        self._slowest[method] = max((time.monotonic() - began) / images, slowest or 0.0)  # students differ in size
        return answers

    def kill(self) -> None:
        """Ends all ranks at once."""
        ranks, self._ranks = self._ranks, []
        for rank in ranks:
            ray.kill(rank, no_restart=True)

    def _collect(self, references: Sequence[Any], bound_s: float, *, began: bool) -> list[Any]:
        """`began`: the ranks run; else they may wait for a node to run on."""
        answers: dict[Any, Any] = {}
        waiting, deadline = list(references), time.monotonic() + bound_s
        while waiting:
            # one at a time: the first failure of any rank surfaces at once, though its peers wait for it for ever
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                silent = [rank for rank, reference in enumerate(references) if reference in waiting]
                self.kill()
                lost = RankLost(f"rank {silent[0]} of {len(references)} gave no answer within {bound_s:.0f} s")
                lost.hung = began
                raise lost
            try:
                answers[ready[0]] = ray.get(ready[0])
            except RayError as error:
                failure = self._explain(references, ready[0], error, waiting)
                self.kill()
                raise failure from None
        return [answers[reference] for reference in references]

    def _explain(self, references: Sequence[Any], first: Any, error: Exception, waiting: Sequence[Any]) -> RankError:
        """A rank's exception may only be what its peer's death looks like from there, so look for that first."""
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
                # plain text: an ActorDiedError that leaves Tune's trainable counts as the trainable's own death
                lost = RankLost(f"rank {references.index(reference)} of {len(references)} died: {_cause(failure)}")
                monitored = isinstance(failure, OutOfMemoryError)  # by Ray, which kills before the kernel would
                lost.out_of_memory = monitored or memory.killed(str(failure), self._kernel_kills)
                return lost
        failed = RankError(f"rank {references.index(first)} of {len(references)} failed:\n{_plain(error)}")
        failed.cause = getattr(error, "cause", None)
        failed.out_of_memory = isinstance(failed.cause, OutOfMemory)
        return failed


def _plain(error: Exception) -> str:
    """Ray's text without the terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _cause(error: Exception) -> str:
    """The sentence of Ray's text that says how a process ended."""
    text = " ".join(_plain(error).split())
    found = re.search(r"Worker exit detail: (.*?)(?: There are some potential| Some common causes|$)", text)
    return (found[1] if found else text)[:300]
