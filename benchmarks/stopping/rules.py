"""What the early-stopping rules save and lose, by simulation over curves like the recorded ones.

    python -m benchmarks.stopping.rules [--sets 1000]

Curve sets are drawn from `curves.fit` of the recorded runs (`recorded_curves.json`), 64 trials each: 8 configurations x
2 seeds of 4 student sizes. The real rules run over each set (`orchestrator.sweep.choose.simulate`). Reported are
shares of the full grid's: hypervolume of the front of all trials' last values, stopped ones included (`hypervolume`;
reference: the worst of the full grid's front x 1.1), and images trained; and how often every class had a trial trained
to the end. Beside them an oracle that knows the final values, and the same rules over curves whose early rungs say
more, or whose trials differ more, than the recorded ones'. Means have 95 % intervals over the drawn sets, without the
fit's own error.

Each rule runs with the default settings and with chosen ones: of all that were tried, on sets of their own, the most
hypervolume for at most 30 % of the images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, get_args

import numpy as np

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.stopping.curves import Fit, draw, fit
from benchmarks.stopping.hypervolume import Point, hypervolume, reference
from benchmarks.stopping.recorded import RECORDED, load
from orchestrator.evaluation.front import fronts
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep.choose.rungs import Report, RungRule
from orchestrator.sweep.choose.simulate import Curve, Listed, SimulatedSweep, full_grid, oracle, simulate

GOAL_HYPERVOLUME, GOAL_IMAGES = 0.98, 0.30
RULES: tuple[StoppingRule, ...] = tuple(name for name in get_args(StoppingRule) if name != "none")
CONFIGURATIONS, SEEDS = 8, 2  # of each class: 64 trials
RUNGS = (  # of those that were recorded; the first are the default in shares of the budget
    *((160, 480, 1440), (48, 160, 480, 1440), (48, 480, 1440), (88, 360, 1440)),
    *((160, 720, 1440), (88, 1440), (160, 1440), (360, 1440)),
)
REDUCTIONS, BRACKETS = (2, 3, 4, 6), (1, 2)
LIMITS = (  # of the recorded material, said in the result
    "48 trials of one specification: 4 student sizes, 4 losses, 3 seeds",
    "deviations are taken for normal, and of one covariance in all classes",
)
ALTERED = tuple((says, factor) for factor in (1, 4) for says in (-0.5, 0.0, 0.5) if (says, factor) != (0.0, 1))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of `early_stopping`, apart from the rule."""

    rungs: tuple[int, ...] = RUNGS[0]
    reduction: int = 3
    brackets: int = 1

    def rule(self, name: StoppingRule) -> RungRule:
        return RungRule(rule=name, rungs=self.rungs, reduction=self.reduction, brackets=self.brackets)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of the full grid's, for one curve set."""

    hypervolume: float
    images: float
    classes_kept: bool  # every class has a trial that was trained to the end


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, began = facts(), time.monotonic()
    fitted = fit(load(options.recorded))
    searches = {name: _search(name, fitted, options) for name in RULES}
    settings = {name: {"default": Setting(), "chosen": best(searches[name])} for name in RULES}
    figures = {
        "settings": {"trials": CONFIGURATIONS * SEEDS * len(fitted.classes), "slots": options.slots},
        "goal": {"hypervolume_share": GOAL_HYPERVOLUME, "images_share": GOAL_IMAGES},
        "limits": LIMITS,
        "fit": fitted.to_json(),
        "as_recorded": _material(fitted, settings, options.sets, options.slots),
        "altered": [
            {
                "early_rungs_say_more": says,
                "spread_times": factor,
                **_material(altered(fitted, says, factor), settings, options.sets // 5, options.slots),
            }
            for says, factor in ALTERED
        ],
        "tried": {name: _within_goal(searches[name]) for name in RULES},
        "a_decision": {name: _decision_ms(name, fitted) for name in RULES},
    }
    write(options.results, "rules", machine, figures | {"seconds": time.monotonic() - began})
    return 0


def _search(name: StoppingRule, fitted: Fit, options: argparse.Namespace) -> dict[Setting, dict[str, Any]]:
    """Setting -> its summary."""
    sets, slots = options.search_sets, options.slots
    return {setting: summary(_shares(fitted, name, setting, sets, 0, slots)) for setting in _settings()}


def _material(
    fitted: Fit, settings: Mapping[StoppingRule, Mapping[str, Setting]], sets: int, slots: int
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "sets": sets,
        "oracle": summary([_oracle(curves) for curves in _sets(fitted, sets, 1, RUNGS[0])]),
    }
    for name, labelled in settings.items():
        figures[name] = {
            label: asdict(setting) | summary(_shares(fitted, name, setting, sets, 1, slots))
            for label, setting in labelled.items()
        }
        for label, row in figures[name].items():
            shown = [row[field]["mean"] for field in ("hypervolume_share", "images_share")]
            print(f"{name} {label}: {100 * shown[0]:.2f} % of the hypervolume, {100 * shown[1]:.1f} % of the images")
    return figures


def best(tried: Mapping[Setting, Mapping[str, Any]]) -> Setting:
    """The most hypervolume for at most the goal's images."""
    cheap = [setting for setting in tried if tried[setting]["images_share"]["mean"] <= GOAL_IMAGES]
    return max(cheap, key=lambda setting: float(tried[setting]["hypervolume_share"]["mean"]))


def _within_goal(tried: Mapping[Setting, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All settings that reach both goals in the search."""
    return [
        asdict(setting) | {name: round(row[name]["mean"], 4) for name in ("hypervolume_share", "images_share")}
        for setting, row in tried.items()
        if row["hypervolume_share"]["mean"] >= GOAL_HYPERVOLUME and row["images_share"]["mean"] <= GOAL_IMAGES
    ]


def _settings() -> Iterator[Setting]:
    for rungs in RUNGS:
        for reduction in REDUCTIONS:
            for brackets in BRACKETS:
                yield Setting(rungs=rungs, reduction=reduction, brackets=brackets)


def _sets(fitted: Fit, count: int, seed: int, rungs: Sequence[int]) -> Iterator[list[Curve]]:
    for number in range(count):
        source = np.random.default_rng((seed, number))
        yield draw(fitted, source, rungs, configurations=CONFIGURATIONS, seeds=SEEDS)


def _shares(fitted: Fit, name: StoppingRule, setting: Setting, count: int, seed: int, slots: int) -> list[Shares]:
    return [
        shares(curves, setting.rungs, simulate(Listed(curves), lambda curve: curve, setting.rule(name), slots))
        for curves in _sets(fitted, count, seed, setting.rungs)
    ]


def _oracle(curves: Sequence[Curve]) -> Shares:
    return shares(curves, RUNGS[0], oracle(curves, RUNGS[0]))


def shares(curves: Sequence[Curve], rungs: Sequence[int], outcome: SimulatedSweep) -> Shares:
    """An outcome beside the full grid's."""
    grid = full_grid(curves, rungs)
    last = _points(grid)
    worst = reference([point for point, number in zip(last, fronts(last), strict=True) if number == 0])
    finished = {trial.curve.complexity_class for trial in outcome.ended if trial.rungs == len(rungs)}
    return Shares(
        hypervolume=hypervolume(_points(outcome), worst) / hypervolume(_points(grid), worst),
        images=outcome.images / grid.images,
        classes_kept=finished == {curve.complexity_class for curve in curves},
    )


def summary(sets: Sequence[Shares]) -> dict[str, Any]:
    """Means with the half width of their 95 % intervals, and shares of the sets."""

    def mean(values: Sequence[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "ci95": float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)}

    return {
        "hypervolume_share": mean([row.hypervolume for row in sets]),
        "images_share": mean([row.images for row in sets]),
        "sets_with_every_class_kept": float(np.mean([row.classes_kept for row in sets])),
        "sets_at_the_hypervolume_goal": float(np.mean([row.hypervolume >= GOAL_HYPERVOLUME for row in sets])),
    }


def _points(outcome: SimulatedSweep) -> list[Point]:
    return [(trial.bd_rate_pct, trial.curve.macs_per_pixel) for trial in outcome.ended if trial.bd_rate_pct is not None]


def altered(fitted: Fit, says: float, factor: float) -> Fit:
    """Correlations of rungs moved by a share of the way to 1, or to 0 where it is negative; spreads times a factor."""
    spreads = factor * np.sqrt(np.diag(np.array(fitted.covariance)))
    correlations = np.array([[fitted.correlation(one, other) for other in fitted.rungs] for one in fitted.rungs])
    target = np.eye(len(fitted.rungs)) if says < 0 else np.ones_like(correlations)
    covariance = ((1 - abs(says)) * correlations + abs(says) * target) * np.outer(spreads, spreads)
    return replace(fitted, covariance=tuple(map(tuple, covariance.tolist())))


def _decision_ms(name: StoppingRule, fitted: Fit) -> dict[str, float]:
    """CPU milliseconds of a decision at the first rung when so many trials have reported, the median of 20."""
    return {f"{trials}_trials_cpu_ms": 1000 * median(_timed(name, fitted, trials)) for trials in (100, 10_000)}


def _timed(name: StoppingRule, fitted: Fit, trials: int) -> list[float]:
    rule, times = Setting().rule(name), []
    curves = draw(fitted, np.random.default_rng(0), RUNGS[0], configurations=trials // 4, seeds=1)
    reports = [_first_report(curve) for curve in curves]
    decision = Setting().rule(name).decide(reports[0])
    rule.restore(
        (report, decision.model_copy(update={"sequence": place})) for place, report in enumerate(reports[:-20])
    )
    for report in reports[-20:]:
        began = time.process_time()
        rule.decide(report)
        times.append(time.process_time() - began)
    return times


def _first_report(curve: Curve) -> Report:
    return Report(
        trial_id=curve.trial_id,
        complexity_class=curve.complexity_class,
        macs_per_pixel=curve.macs_per_pixel,
        images_seen=RUNGS[0][0],
        bd_rate_pct=curve.bd_rate_pct[0],
        bd_rate_reason=None,
        log_lagrangian_ratio=curve.log_lagrangian_ratio[0],
    )


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recorded", default=str(RECORDED), metavar="FILE")
    add("--sets", type=count, default=1000)
    add("--search-sets", type=count, default=50)
    add("--slots", type=count, default=4)
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
