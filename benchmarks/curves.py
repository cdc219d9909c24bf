"""Learning curves like the recorded ones: a model that is fitted to them, and draws from it.

With s the share of the budget (images seen over those of the last rung, where the learning rate's cosine ends), the
BD-rate in percent of a trial of a complexity class is

    100 ((1 + f(s) / 100) exp(sigma(s) z(s)) - 1),   f(s) = a + b s^-c of the class,   sigma(s) = p s^q

so that sigma is the spread of trials of a class in units of ln rate. z has unit variance and exp(-|ln(s / t)| / memory)
as its correlation between rungs s and t; it is the sum of a part that the seeds of a configuration share and one of
each trial's own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from benchmarks.recorded import Recorded
from orchestrator.sweep.simulate import Curve

EXPONENTS = np.geomspace(0.05, 2.0, 60)  # below, the law is a logarithm in all but name
MEMORIES = np.geomspace(0.05, 20.0, 200)


@dataclass(frozen=True, kw_only=True)
class ClassFit:
    """The power law of a class."""

    complexity_class: str
    macs_per_pixel: float
    a: float
    b: float
    c: float
    points: int
    rms_pct: float  # of the residuals, percent of BD-rate
    seconds_per_image: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """All that `draw` needs."""

    classes: tuple[ClassFit, ...]
    sigma: tuple[float, float]  # p, q
    memory: float  # in units of ln images; inf: a trial's place in its class never changes
    configuration_share: float  # of the variance; the rest is the seeds'
    trials: int  # that were recorded, and
    values: int  # their valid BD-rates

    def to_json(self) -> dict[str, Any]:
        shares = (1 / 9, 1 / 3, 1.0)
        return asdict(self) | {
            "spread_at_1/9_1/3_1": [self.spread(share) for share in shares],
            "correlation_with_the_last_rung_at_1/9_1/3": [self.correlation(share, 1.0) for share in shares[:2]],
        }

    def spread(self, share: float) -> float:
        return self.sigma[0] * share ** self.sigma[1]

    def correlation(self, one: float, other: float) -> float:
        return math.exp(-abs(math.log(one / other)) / self.memory)


def fit(trials: Sequence[Recorded]) -> Fit:
    """Moments and least squares; the memory by maximum likelihood over pairs of rungs."""
    deviations = _deviations(trials)
    names = sorted({each.complexity_class for each in trials})
    return Fit(
        classes=tuple(_power_law([each for each in trials if each.complexity_class == name]) for name in names),
        sigma=_spread(deviations),
        memory=_memory(deviations),
        configuration_share=_configuration_share(trials),
        trials=len(trials),
        values=sum(len(each.bd_rate_pct) for each in trials),
    )


def draw(
    fitted: Fit, source: np.random.Generator, rungs: Sequence[int], *, configurations: int, seeds: int
) -> list[Curve]:
    """One curve set: `configurations` x `seeds` trials of each class, in the order in which a sweep runs them."""
    shares = [rung / rungs[-1] for rung in rungs]
    size = (len(fitted.classes), configurations)
    common = _series(fitted, source, shares, (*size, 1))
    own = _series(fitted, source, shares, (*size, seeds))
    z = math.sqrt(fitted.configuration_share) * common + math.sqrt(1 - fitted.configuration_share) * own
    spreads = np.array([fitted.spread(share) for share in shares])
    curves = []
    for seed in range(seeds):
        for configuration in range(configurations):
            for index, law in enumerate(fitted.classes):
                mean = law.a + law.b * np.array(shares) ** -law.c
                pct = 100 * ((1 + mean / 100) * np.exp(spreads * z[index, configuration, seed]) - 1)
                curves.append(
                    Curve(
                        trial_id=f"{len(curves) + 1:05}",
                        complexity_class=law.complexity_class,
                        macs_per_pixel=law.macs_per_pixel,
                        bd_rate_pct=tuple(pct.tolist()),
                        log_lagrangian_ratio=tuple(np.log1p(pct / 100).tolist()),
                        seconds=tuple((law.seconds_per_image * np.diff([0, *rungs])).tolist()),
                    )
                )
    return curves


def _series(fitted: Fit, source: np.random.Generator, shares: Sequence[float], size: tuple[int, ...]) -> np.ndarray:
    """Unit normal values at each rung, rungs last; only the last one is remembered."""
    values = [source.standard_normal(size)]
    for before, share in pairwise(shares):
        rho = fitted.correlation(before, share)
        values.append(rho * values[-1] + math.sqrt(1 - rho**2) * source.standard_normal(size))
    return np.stack(values, axis=-1)


def _power_law(trials: Sequence[Recorded]) -> ClassFit:
    """Least squares over a, b at each exponent, b at least 0."""
    share = np.array([images / each.budget for each in trials for images in each.images_seen])
    pct = np.array([value for each in trials for value in each.bd_rate_pct])
    best: tuple[float, float, float, float] | None = None
    for c in EXPONENTS:
        x = share**-c
        b = max(0.0, float(np.cov(x, pct, bias=True)[0, 1] / np.var(x)))
        a = float(pct.mean() - b * x.mean())
        rms = float(np.sqrt(np.mean((a + b * x - pct) ** 2)))
        if best is None or rms < best[0]:
            best = rms, a, b, float(c)
    assert best is not None
    seconds = sum(sum(each.seconds) for each in trials)
    first = trials[0]
    return ClassFit(
        complexity_class=first.complexity_class,
        macs_per_pixel=first.macs_per_pixel,
        a=best[1],
        b=best[2],
        c=best[3],
        points=len(pct),
        rms_pct=best[0],
        seconds_per_image=seconds / sum(each.images_seen[-1] for each in trials),
    )


def _cells(trials: Iterable[Recorded]) -> dict[tuple[str, str, float], list[tuple[int, Recorded, float]]]:
    """(recording, class, share) -> the trials there, with ln rate."""
    cells = defaultdict(list)
    for number, each in enumerate(trials):
        for images, pct in zip(each.images_seen, each.bd_rate_pct, strict=True):
            share = round(images / each.budget, 2)
            cells[each.recording, each.complexity_class, share].append((number, each, math.log1p(pct / 100)))
    return {key: cell for key, cell in cells.items() if len(cell) > 1}


def _deviations(trials: Sequence[Recorded]) -> list[dict[float, float]]:
    """Of each trial, by share: ln rate above its class's mean at that rung, without the bias of the mean's fit."""
    found: list[dict[float, float]] = [{} for _ in trials]
    for (_, _, share), cell in _cells(trials).items():
        mean, scale = np.mean([value for *_, value in cell]), math.sqrt(len(cell) / (len(cell) - 1))
        for number, _, value in cell:
            found[number][share] = float(value - mean) * scale
    return found


def _spread(deviations: Sequence[dict[float, float]]) -> tuple[float, float]:
    """p, q of sigma(s) = p s^q: a line through ln sigma at each share, weighted by the number of values."""
    by_share = defaultdict(list)
    for each in deviations:
        for share, value in each.items():
            by_share[share].append(value)
    shares = sorted(by_share)
    sigmas = [math.sqrt(np.mean(np.square(by_share[share]))) for share in shares]
    weights = np.sqrt([len(by_share[share]) for share in shares])
    q, p = np.polyfit(np.log(shares), np.log(sigmas), 1, w=weights)
    return math.exp(p), float(q)


def _memory(deviations: Sequence[dict[float, float]]) -> float:
    """By the likelihood of pairs of rungs as bivariate normal, each rung scaled to unit variance by its own spread."""
    p, q = _spread(deviations)
    pairs = [
        (abs(math.log(one / other)), each[one] / (p * one**q), each[other] / (p * other**q))
        for each in deviations
        for one, other in combinations(sorted(each), 2)
    ]
    gap, x, y = np.array(pairs).T

    def misfit(memory: float) -> float:
        rho = np.exp(-gap / memory)
        rest = 1 - rho**2
        return float(np.sum(np.log(rest) + (x**2 - 2 * rho * x * y + y**2) / rest))

    return float(min(MEMORIES, key=misfit))


def _configuration_share(trials: Sequence[Recorded]) -> float:
    """Of the variance at the last rung within a class, the share between configurations, not seeds of one."""
    within, within_freedom, whole, whole_freedom = 0.0, 0, 0.0, 0
    for (*_, share), cell in _cells(trials).items():
        configurations = defaultdict(list)
        for _, each, value in cell:
            configurations[each.configuration].append(value)
        if share != 1.0 or len(configurations) == len(cell):
            continue
        within += sum(float(np.var(values)) * len(values) for values in configurations.values())
        within_freedom += len(cell) - len(configurations)
        whole += float(np.var([value for *_, value in cell])) * len(cell)
        whole_freedom += len(cell) - 1
    return max(0.0, 1 - (within / within_freedom) / (whole / whole_freedom))
