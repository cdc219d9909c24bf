"""What ended trials say of their configurations, as a search compares them (pure); lower is better."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, Protocol


class RungFigures(Protocol):
    """What a search reads of a rung, see `trials.record.Rung`."""

    @property
    def images_seen(self) -> int: ...
    @property
    def bd_rate_pct(self) -> float | None: ...
    @property
    def log_lagrangian_ratio(self) -> float: ...


class TrialFigures(Protocol):
    """What a search reads of a trial, see `trials.record.TrialRecord`; a simulated trial has no more."""

    @property
    def trial_id(self) -> str: ...
    @property
    def complexity_class(self) -> str: ...
    @property
    def macs_per_pixel(self) -> float: ...
    @property
    def ended(self) -> bool: ...
    @property
    def rungs(self) -> Sequence[RungFigures]: ...


class Measures(NamedTuple):
    """Of a rung."""

    bd_rate_pct: float | None  # None: not valid
    log_lagrangian_ratio: float


class Outcome(NamedTuple):
    """Of a trial, or of all replicates of a configuration."""

    complexity_class: str
    macs_per_pixel: float
    rungs: Mapping[int, Measures]  # by images seen

    @property
    def images_seen(self) -> int:
        return max(self.rungs)

    @property
    def last(self) -> Measures:
        return self.rungs[self.images_seen]


def outcome(trial: TrialFigures) -> Outcome:
    """Of a trial that has ended."""
    rungs = {rung.images_seen: Measures(rung.bd_rate_pct, rung.log_lagrangian_ratio) for rung in trial.rungs}
    return Outcome(trial.complexity_class, trial.macs_per_pixel, rungs)


def mean(replicates: Sequence[Outcome]) -> Outcome:
    """Over the replicates, at the rungs that all of them reached."""
    first = replicates[0]
    rungs = {}
    for images in first.rungs:
        measures = [each.rungs[images] for each in replicates if images in each.rungs]
        if len(measures) == len(replicates):
            rates = [each.bd_rate_pct for each in measures if each.bd_rate_pct is not None]
            rate = fmean(rates) if len(rates) == len(measures) else None
            rungs[images] = Measures(rate, fmean(each.log_lagrangian_ratio for each in measures))
    return first._replace(rungs=rungs)


def comparable(measures: Sequence[Measures]) -> list[float]:
    """The BD-rates if all are valid, else all log Lagrangian ratios: the two are never mixed."""
    rates = [each.bd_rate_pct for each in measures if each.bd_rate_pct is not None]
    return rates if len(rates) == len(measures) else [each.log_lagrangian_ratio for each in measures]


def places(outcomes: Sequence[Outcome]) -> list[float]:
    """Of each outcome, the share of its complexity class that is better at the last rung that it reached."""
    groups: dict[tuple[str, int], list[tuple[int, Measures]]] = defaultdict(list)
    for index, each in enumerate(outcomes):
        for images, measures in each.rungs.items():
            groups[each.complexity_class, images].append((index, measures))
    found = [0.0] * len(outcomes)
    for (_, images), group in groups.items():
        values = comparable([measures for _, measures in group])
        ordered = sorted(values)
        for (index, _), value in zip(group, values, strict=True):
            if images == outcomes[index].images_seen:
                found[index] = bisect_left(ordered, value) / len(ordered)
    return found
