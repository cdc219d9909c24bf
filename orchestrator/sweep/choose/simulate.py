"""Simulates a sweep: the real early-stopping rule and the real search over given learning curves (pure).

A discrete-event simulation: a free slot takes the next trial, a segment takes the seconds given by the trial's curve,
and at its end the rule decides. Segments that end at the same moment report in the order in which they began.
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
INVALID_REASON = "the given curve is not valid here"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a trial would report if it were trained to its end; every sequence has one entry per rung."""

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
    """What a search reads of the record of a trial that ended."""

    trial_id: str
    complexity_class: str
    macs_per_pixel: float
    status: Status
    rungs: tuple[SimulatedRung, ...]
    ended: bool = True


class TrialSource(Protocol[T_co]):
    """Gives out trials: a `search.Search`, or `Listed`."""

    def ask(self) -> T_co | None:
        """The next trial; None: there are no more."""

    def tell(self, trial_id: str, record: SimulatedTrial) -> None:
        """Learn from a trial that has ended."""


class Listed(TrialSource[T]):
    """Trials in a given order."""

    def __init__(self, trials: Iterable[T]) -> None:
        self._waiting = deque(trials)

    def ask(self) -> T | None:
        return self._waiting.popleft() if self._waiting else None

    def tell(self, trial_id: str, record: SimulatedTrial) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that ended in a simulation."""

    curve: Curve
    rungs: int  # how many it reached

    @property
    def trial_id(self) -> str:
        return self.curve.trial_id

    @property
    def macs_per_pixel(self) -> float:
        return self.curve.macs_per_pixel

    @property
    def bd_rate_pct(self) -> float | None:
        """At the last rung that it reached; None: not valid."""
        return self.curve.bd_rate_pct[self.rungs - 1]


@dataclass(frozen=True, kw_only=True)
class SimulatedSweep:
    """The result of a simulation."""

    images: int  # trained on, over all trials
    seconds: float  # from the first segment's start to the last one's end
    decisions: tuple[tuple[Report, Decision], ...]
    ended: tuple[Ended, ...]  # in the order of their ends


def simulate(search: TrialSource[T], curve_of: Callable[[T], Curve], rule: RungRule, slots: int) -> SimulatedSweep:
    """Simulate a sweep.

    Args:
        search: asked for a trial whenever a slot is free, and told each trial that ended. After None it is not asked
            again.
        curve_of: gives the curve of a trial, with an entry for every rung of the rule.
        rule: with no reports yet.
        slots: how many trials train at the same time.
    """
    count = itertools.count()
    running: list[tuple[float, int, int, Curve]] = []  # end of the segment, order of starts, rung, curve
    paused: dict[str, tuple[int, Curve]] = {}  # by trial: the rung that it has reached
    ended: list[Ended] = []
    now, more = 0.0, True
    while running or more:
        while len(running) < slots:
            promoted = rule.promote() if paused else None
            if promoted is None and more:
                trial = search.ask()
                if trial is not None:
                    curve = curve_of(trial)
                    heapq.heappush(running, (now + curve.seconds[0], next(count), 0, curve))
                    continue
                more = False
            promoted = promoted or (rule.promote(last=True) if paused else None)
            if promoted is None:
                break
            rung, curve = paused.pop(promoted[0])
            heapq.heappush(running, (now + curve.seconds[rung + 1], next(count), rung + 1, curve))
        if not running:
            break
        now, _, rung, curve = heapq.heappop(running)
        action = rule.decide(_report(curve, rule.rungs, rung)).action
        if action == "continue":
            heapq.heappush(running, (now + curve.seconds[rung + 1], next(count), rung + 1, curve))
        elif action == "pause":
            paused[curve.trial_id] = rung, curve
        else:
            ended.append(Ended(curve=curve, rungs=rung + 1))
            search.tell(curve.trial_id, _record(curve, rule.rungs[: rung + 1], action))
    for trial_id, _ in rule.stop_paused():
        rung, curve = paused[trial_id]
        ended.append(Ended(curve=curve, rungs=rung + 1))
    return SimulatedSweep(
        images=_images(ended, rule.rungs), seconds=now, decisions=rule.decisions(), ended=tuple(ended)
    )


def full_grid(curves: Sequence[Curve], rungs: Sequence[int]) -> SimulatedSweep:
    """Every trial trained to its end: as `simulate` with the rule `none`, but without decisions and seconds."""
    return _given([Ended(curve=curve, rungs=len(rungs)) for curve in curves], rungs)


def oracle(curves: Sequence[Curve], rungs: Sequence[int]) -> SimulatedSweep:
    """The bound for any rule: every trial is trained to the first rung, and the final front's trials to the end."""
    last = [Ended(curve=curve, rungs=len(rungs)) for curve in curves if curve.bd_rate_pct[-1] is not None]
    front = {ended.trial_id for ended in pareto_front(last)}
    return _given([Ended(curve=curve, rungs=len(rungs) if curve.trial_id in front else 1) for curve in curves], rungs)


def _given(ended: Sequence[Ended], rungs: Sequence[int]) -> SimulatedSweep:
    return SimulatedSweep(images=_images(ended, rungs), seconds=0.0, decisions=(), ended=tuple(ended))


def _images(ended: Iterable[Ended], rungs: Sequence[int]) -> int:
    return sum(rungs[trial.rungs - 1] for trial in ended)


def _report(curve: Curve, rungs: Sequence[int], rung: int) -> Report:
    return Report(
        trial_id=curve.trial_id,
        complexity_class=curve.complexity_class,
        macs_per_pixel=curve.macs_per_pixel,
        images_seen=rungs[rung],
        bd_rate_pct=curve.bd_rate_pct[rung],
        bd_rate_reason=INVALID_REASON if curve.bd_rate_pct[rung] is None else None,
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
