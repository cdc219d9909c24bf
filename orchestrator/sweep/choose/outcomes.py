"""Outcomes of ended trials, and how a search compares them (pure); lower is better."""

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
    """What a search reads of a trial, see `trials.record.TrialRecord` and `simulate.SimulatedTrial`."""

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


class RungValues(NamedTuple):
    """The values of a rung, or their means over replicates."""

    bd_rate_pct: float | None  # None: not valid
    log_lagrangian_ratio: float


class Outcome(NamedTuple):
    """The outcome of a trial, or the mean of a configuration's replicates."""

    complexity_class: str
    macs_per_pixel: float
    rungs: Mapping[int, RungValues]  # by images seen

    @property
    def images_seen(self) -> int:
        """At the last rung."""
        return max(self.rungs)

    @property
    def last(self) -> RungValues:
        """The values of the last rung."""
        return self.rungs[self.images_seen]


def outcome(trial: TrialFigures) -> Outcome:
    """The outcome of a trial that has ended."""
    rungs = {rung.images_seen: RungValues(rung.bd_rate_pct, rung.log_lagrangian_ratio) for rung in trial.rungs}
    return Outcome(trial.complexity_class, trial.macs_per_pixel, rungs)


def mean(replicates: Sequence[Outcome]) -> Outcome:
    """The mean over replicates, at the rungs that all of them reached."""
    first = replicates[0]
    rungs = {}
    for images in first.rungs:
        values = [replicate.rungs[images] for replicate in replicates if images in replicate.rungs]
        if len(values) == len(replicates):
            rates = [value.bd_rate_pct for value in values if value.bd_rate_pct is not None]
            rate = fmean(rates) if len(rates) == len(values) else None
            rungs[images] = RungValues(rate, fmean(value.log_lagrangian_ratio for value in values))
    return first._replace(rungs=rungs)


def comparable(values: Sequence[RungValues]) -> list[float]:
    """The BD-rates if all are valid, else all log Lagrangian ratios: the two are never mixed."""
    rates = [value.bd_rate_pct for value in values if value.bd_rate_pct is not None]
    return rates if len(rates) == len(values) else [value.log_lagrangian_ratio for value in values]


def class_quantiles(outcomes: Sequence[Outcome]) -> list[float]:
    """For each outcome, the share of its complexity class that was better at the outcome's last rung; in [0, 1)."""
    groups: dict[tuple[str, int], list[tuple[int, RungValues]]] = defaultdict(list)
    for index, outcome in enumerate(outcomes):
        for images, rung_values in outcome.rungs.items():
            groups[outcome.complexity_class, images].append((index, rung_values))
    quantiles = [0.0] * len(outcomes)
    for (_, images), group in groups.items():
        values = comparable([rung_values for _, rung_values in group])
        ordered = sorted(values)
        for (index, _), value in zip(group, values, strict=True):
            if images == outcomes[index].images_seen:
                quantiles[index] = bisect_left(ordered, value) / len(ordered)
    return quantiles
