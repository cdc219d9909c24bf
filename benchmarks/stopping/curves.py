"""Learning curves like the recorded ones: a model that is fitted to them, and draws from it.

At each recorded rung a complexity class has a mean ln(1 + BD-rate / 100) and a mean log Lagrangian ratio. A trial is
off its class's mean by a deviation that is normal over the rungs, with the covariance of the recorded trials'
deviations from the mean of their class and seed: the same for all classes. It is the sum of a part that the seeds of a
configuration share and one of each trial's own. The log Lagrangian ratio is off by the same deviation, scaled at each
rung. Where more than half of a class's recorded curves gave no BD-rate, none of the drawn ones gives one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from benchmarks.stopping.recorded import Recorded
from orchestrator.sweep.choose.simulate import Curve

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ClassFit:
    """The means of a class, one a rung."""

    complexity_class: str
    macs_per_pixel: float
    ln_rate: tuple[float | None, ...]  # None: mostly not valid
    log_lagrangian_ratio: tuple[float, ...]
    seconds: tuple[float, ...]  # since the rung before


@dataclass(frozen=True, kw_only=True)
class Fit:
    """All that `draw` needs."""

    rungs: tuple[int, ...]  # images seen
    classes: tuple[ClassFit, ...]
    covariance: Matrix  # of a trial's deviations in ln rate
    ratio_scale: tuple[float, ...]  # of its deviations in the log Lagrangian ratio over those
    configuration_share: float  # of the variance; the rest is the seeds'
    trials: int  # that were recorded

    def spread(self, rung: int) -> float:
        """Standard deviation of trials of a class in ln rate."""
        index = self.rungs.index(rung)
        return math.sqrt(self.covariance[index][index])

    def correlation(self, one: int, other: int) -> float:
        first, second = self.rungs.index(one), self.rungs.index(other)
        return self.covariance[first][second] / (self.spread(one) * self.spread(other))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "spread": [self.spread(rung) for rung in self.rungs],
            "correlation_with_the_last_rung": [self.correlation(rung, self.rungs[-1]) for rung in self.rungs],
        }


def fit(trials: Sequence[Recorded]) -> Fit:
    """Moments. All trials have the same rungs."""
    rungs = trials[0].images_seen
    rates = [[None if pct is None else math.log1p(pct / 100) for pct in trial.bd_rate_pct] for trial in trials]
    deviations = _deviations(trials, rates)
    ratios = _deviations(trials, [list(trial.log_lagrangian_ratio) for trial in trials])
    scale = []
    for rung in range(len(rungs)):
        x, y = zip(*((a[rung], b[rung]) for a, b in zip(deviations, ratios, strict=True) if rung in a), strict=True)
        scale.append(float(np.dot(x, y) / np.dot(x, x)))
    return Fit(
        rungs=rungs,
        classes=tuple(_class(name, trials) for name in sorted({trial.complexity_class for trial in trials})),
        covariance=_covariance(deviations, len(rungs)),
        ratio_scale=tuple(scale),
        configuration_share=_configuration_share(trials, deviations, len(rungs) - 1),
        trials=len(trials),
    )


def draw(
    fitted: Fit, source: np.random.Generator, rungs: Sequence[int], *, configurations: int, seeds: int
) -> list[Curve]:
    """One curve set: `configurations` x `seeds` trials of each class, in the order in which a sweep runs them.

    `rungs` are some of the fitted ones, rising.
    """
    kept = [fitted.rungs.index(rung) for rung in rungs]
    covariance = np.array(fitted.covariance)[np.ix_(kept, kept)]
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    size = (len(fitted.classes), configurations)
    common = source.standard_normal((*size, 1, len(kept))) @ root.T
    own = source.standard_normal((*size, seeds, len(kept))) @ root.T
    share = fitted.configuration_share
    deviations = math.sqrt(share) * common + math.sqrt(1 - share) * own
    scale = [fitted.ratio_scale[rung] for rung in kept]
    curves: list[Curve] = []
    for seed in range(seeds):
        for configuration in range(configurations):
            for index, law in enumerate(fitted.classes):
                off = deviations[index, configuration, seed].tolist()
                rates = [law.ln_rate[rung] for rung in kept]
                pairs = zip(rates, off, strict=True)
                ends = [sum(law.seconds[: rung + 1]) for rung in kept]
                curves.append(
                    Curve(
                        trial_id=f"{len(curves) + 1:05}",
                        complexity_class=law.complexity_class,
                        macs_per_pixel=law.macs_per_pixel,
                        bd_rate_pct=tuple(None if rate is None else 100 * math.expm1(rate + by) for rate, by in pairs),
                        log_lagrangian_ratio=tuple(
                            law.log_lagrangian_ratio[rung] + factor * by
                            for rung, factor, by in zip(kept, scale, off, strict=True)
                        ),
                        seconds=tuple(np.diff([0.0, *ends]).tolist()),
                    )
                )
    return curves


def _class(name: str, trials: Sequence[Recorded]) -> ClassFit:
    mine = [trial for trial in trials if trial.complexity_class == name]
    rates: list[float | None] = []
    for rung in range(len(mine[0].images_seen)):
        valid = [math.log1p(pct / 100) for trial in mine if (pct := trial.bd_rate_pct[rung]) is not None]
        rates.append(float(np.mean(valid)) if 2 * len(valid) > len(mine) else None)
    return ClassFit(
        complexity_class=name,
        macs_per_pixel=mine[0].macs_per_pixel,
        ln_rate=tuple(rates),
        log_lagrangian_ratio=tuple(np.mean([trial.log_lagrangian_ratio for trial in mine], axis=0).tolist()),
        seconds=tuple(np.mean([trial.seconds for trial in mine], axis=0).tolist()),
    )


def _deviations(trials: Sequence[Recorded], values: Sequence[Sequence[float | None]]) -> list[dict[int, float]]:
    """Of each trial, by rung: above the mean of its recording, class and seed, without the bias of that mean's fit."""
    cells: dict[Any, list[tuple[int, float]]] = defaultdict(list)
    for number, (trial, row) in enumerate(zip(trials, values, strict=True)):
        for rung, value in enumerate(row):
            if value is not None:
                cells[trial.recording, trial.complexity_class, trial.seed, rung].append((number, value))
    deviations: list[dict[int, float]] = [{} for _ in trials]
    for (*_, rung), cell in cells.items():
        if len(cell) > 1:
            mean, scale = np.mean([value for _, value in cell]), math.sqrt(len(cell) / (len(cell) - 1))
            for number, value in cell:
                deviations[number][rung] = float(value - mean) * scale
    return deviations


def _covariance(deviations: Iterable[dict[int, float]], rungs: int) -> Matrix:
    """Of pairs of rungs over the trials that have both; what is not positive of its spectrum is left out."""
    trials = list(deviations)
    covariance = np.zeros((rungs, rungs))
    for one, other in combinations_with_replacement(range(rungs), 2):
        products = [trial[one] * trial[other] for trial in trials if one in trial and other in trial]
        covariance[one, other] = covariance[other, one] = np.mean(products)
    values, vectors = np.linalg.eigh(covariance)
    return tuple(map(tuple, ((vectors * np.maximum(values, 0.0)) @ vectors.T).tolist()))


def _configuration_share(trials: Sequence[Recorded], deviations: Sequence[dict[int, float]], rung: int) -> float:
    """Of the variance at a rung within a class and seed, the share between configurations: what pairs of seeds of one
    configuration have in common."""

    cells: dict[Any, list[float]] = defaultdict(list)
    for trial, deviation in zip(trials, deviations, strict=True):
        if rung in deviation:
            cells[trial.recording, trial.complexity_class, trial.configuration].append(deviation[rung])
    whole = np.mean([value**2 for cell in cells.values() for value in cell])
    common = np.mean([one * other for cell in cells.values() for one, other in combinations(cell, 2)])
    return min(1.0, max(0.0, float(common / whole)))
