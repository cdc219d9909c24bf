"""A sweep without training: the real early-stopping rule and the real search over given learning curves (pure).

Event by event: a free slot takes the next trial, a segment takes the seconds that the trial's curve says, at its end
the rule decides. Segments that end at the same moment report in the order in which they began.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from orchestrator.evaluation.front import pareto_front
from orchestrator.sweep.choose.rungs import Report, RungRule
from orchestrator.trials.record import Action, Decision, Status

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
INVALID = "the given curve is not valid here"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a trial would report if it were trained to its end; one entry a rung in each sequence."""

    trial_id: str
    complexity_class: str
    macs_per_pixel: float
    bd_rate_pct: tuple[float | None, ...]  # None: not valid
    log_lagrangian_ratio: tuple[float, ...]
    seconds: tuple[float, ...]  # of the segment that ends at the rung, validation and saving included


@dataclass(frozen=True, kw_only=True)
class SimulatedRung:
    """What a search reads of a rung."""

    images_seen: int
    bd_rate_pct: float | None
    log_lagrangian_ratio: float


@dataclass(frozen=True, kw_only=True)
class SimulatedTrial:
    """What a search reads of a trial's record, of one that ended."""

    trial_id: str
    complexity_class: str
    macs_per_pixel: float
    status: Status
    rungs: tuple[SimulatedRung, ...]
    ended: bool = True


class Search(Protocol[T_co]):
    """What gives out trials: a searcher, or `Listed`."""

    def ask(self) -> T_co | None:
        """The next trial; None: there are no more."""

    def tell(self, trial_id: str, record: SimulatedTrial) -> None:
        """A trial has ended."""


class Listed(Search[T]):
    """Trials in a given order."""

    def __init__(self, trials: Iterable[T]) -> None:
        self._waiting = deque(trials)

    def ask(self) -> T | None:
        return self._waiting.popleft() if self._waiting else None

    def tell(self, trial_id: str, record: SimulatedTrial) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Where a trial was left."""

    curve: Curve
    rungs: int  # so many were reached

    @property
    def trial_id(self) -> str:
        return self.curve.trial_id

    @property
    def macs_per_pixel(self) -> float:
        return self.curve.macs_per_pixel

    @property
    def bd_rate_pct(self) -> float | None:
        """At the rung that was reached last; None: not valid."""
        return self.curve.bd_rate_pct[self.rungs - 1]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep came to."""

    images: int  # trained, over all trials
    seconds: float  # from the first segment's start to the last one's end
    decisions: tuple[tuple[Report, Decision], ...]
    ended: tuple[Ended, ...]  # in the order of their ends


def simulate(search: Search[T], curve_of: Callable[[T], Curve], rule: RungRule, slots: int) -> Outcome:
    """Runs the sweep.

    Args:
        search: asked for a trial whenever a slot is free, told of each that ended. Once it has no more it is not
            asked again.
        curve_of: gives the curve of a trial, with an entry for every rung of the rule.
        rule: with no reports yet.
        slots: trials that train side by side.
    """
    count = itertools.count()
    running: list[tuple[float, int, int, Curve]] = []  # end of the segment, order of starts, rung, curve
    ended: list[Ended] = []
    now, more = 0.0, True
    while running or more:
        while more and len(running) < slots:
            trial = search.ask()
            if trial is None:
                more = False
                break
            curve = curve_of(trial)
            heapq.heappush(running, (now + curve.seconds[0], next(count), 0, curve))
        if not running:
            break
        now, _, rung, curve = heapq.heappop(running)
        action = rule.decide(_report(curve, rule.rungs, rung)).action
        if action == "continue":
            heapq.heappush(running, (now + curve.seconds[rung + 1], next(count), rung + 1, curve))
        else:
            ended.append(Ended(curve=curve, rungs=rung + 1))
            search.tell(curve.trial_id, _record(curve, rule.rungs[: rung + 1], action))
    return Outcome(images=_images(ended, rule.rungs), seconds=now, decisions=rule.decisions(), ended=tuple(ended))


def full_grid(curves: Sequence[Curve], rungs: Sequence[int]) -> Outcome:
    """Every trial trained to its end: what `simulate` gives with the rule `none`, apart from decisions and seconds."""
    return _given([Ended(curve=curve, rungs=len(rungs)) for curve in curves], rungs)


def oracle(curves: Sequence[Curve], rungs: Sequence[int]) -> Outcome:
    """The bound for any rule: every trial is trained to the first rung, the final front's trials to the end."""
    last = [Ended(curve=curve, rungs=len(rungs)) for curve in curves if curve.bd_rate_pct[-1] is not None]
    front = {ended.trial_id for ended in pareto_front(last)}
    return _given([Ended(curve=curve, rungs=len(rungs) if curve.trial_id in front else 1) for curve in curves], rungs)


def _given(ended: Sequence[Ended], rungs: Sequence[int]) -> Outcome:
    return Outcome(images=_images(ended, rungs), seconds=0.0, decisions=(), ended=tuple(ended))


def _images(ended: Iterable[Ended], rungs: Sequence[int]) -> int:
    return sum(rungs[each.rungs - 1] for each in ended)


def _report(curve: Curve, rungs: Sequence[int], rung: int) -> Report:
    return Report(
        trial_id=curve.trial_id,
        complexity_class=curve.complexity_class,
        macs_per_pixel=curve.macs_per_pixel,
        images_seen=rungs[rung],
        bd_rate_pct=curve.bd_rate_pct[rung],
        bd_rate_reason=INVALID if curve.bd_rate_pct[rung] is None else None,
        log_lagrangian_ratio=curve.log_lagrangian_ratio[rung],
    )


def _record(curve: Curve, rungs: Sequence[int], action: Action) -> SimulatedTrial:
    reached = zip(rungs, curve.bd_rate_pct, curve.log_lagrangian_ratio, strict=False)
    return SimulatedTrial(
        trial_id=curve.trial_id,
        complexity_class=curve.complexity_class,
        macs_per_pixel=curve.macs_per_pixel,
        status="finished" if action == "end" else "stopped",
        rungs=tuple(
            SimulatedRung(images_seen=images, bd_rate_pct=pct, log_lagrangian_ratio=ratio)
            for images, pct, ratio in reached
        ),
    )
