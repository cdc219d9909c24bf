"""10,000 trials on 1,000 slots, simulated: the real rules over given curves, and the real searches drawing trials.

    python -m benchmarks.stopping.large [--trials 10000] [--slots 1000]

Curves are drawn from the fit of the recorded runs, see `rules`. What a search draws gets a curve of its class whose
rate is raised by its loss weights' distance from a made-up optimum; `drawn_late_over_random` says how much of the mean
distance of random draws is left in the last tenth of what was drawn. CPU seconds are of one core.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.stopping.curves import Fit, draw, fit
from benchmarks.stopping.recorded import load
from benchmarks.stopping.rules import RULES, RUNGS, Setting, shares
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import StoppingRule
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.choose.simulate import Curve, Listed, simulate
from orchestrator.sweep.choose.space import number_of

SPEC = Path(__file__).with_name("sweep.yaml")
METHODS = ("random", "tpe", "nsga2")
WEIGHTS = "[{latent: {low: 0.0001, high: 10.0}, reconstruction: {low: 0.0001, high: 10.0}}]"
OPTIMUM = {"latent": 0.01, "reconstruction": 0.1}
RAISED = 0.02  # ln rate, by the square of a factor of e


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, fitted = facts(), fit(load())
    figures: dict[str, Any] = {"trials": options.trials, "slots": options.slots}
    figures["rules"] = {name: ruled(name, fitted, options.trials, options.slots) for name in RULES}
    figures["searches"] = {}
    for name in METHODS:
        spec = load_spec(
            SPEC,
            [f"trials={options.trials}", f"search.method={name}", f"losses={WEIGHTS}"],
        )
        figures["searches"][name] = searched(spec, fitted, options.slots)
        print(name, figures["searches"][name], flush=True)
        write(options.results, "large", machine, figures)
    return 0


def ruled(name: StoppingRule, fitted: Fit, trials: int, slots: int) -> dict[str, Any]:
    """A rule over a full grid's curves."""
    curves = draw(fitted, np.random.default_rng(0), RUNGS[0], configurations=trials // len(fitted.classes), seeds=1)
    began = time.process_time()
    outcome = simulate(Listed(curves), lambda curve: curve, Setting().rule(name), slots)
    seconds, decisions = time.process_time() - began, len(outcome.decisions)
    timed = {"decisions": decisions, "cpu_s": seconds, "cpu_ms_a_decision": 1000 * seconds / decisions}
    return asdict(shares(curves, RUNGS[0], outcome)) | timed


def searched(spec: Spec, fitted: Fit, slots: int) -> dict[str, Any]:
    """A search that hears of every trial's end, under the default rule; shares are of the same trials all trained."""
    search, curves = Search(spec), []
    away: dict[int, float] = {}

    def curve_of(trial: Trial) -> Curve:
        number = number_of(trial.trial_id)
        if trial.teacher:
            away[number] = distance(trial.loss.model_dump())
        curves.append(made_up(trial, fitted, RAISED * away.get(number, 0.0)))
        return curves[-1]

    began = time.process_time()
    outcome = simulate(search, curve_of, Setting().rule("stratified"), slots)
    seconds = time.process_time() - began
    late = [away[number] for number in sorted(away)[-len(away) // 10 :]]
    return asdict(shares(curves, RUNGS[0], outcome)) | {
        "cpu_s": seconds,
        "cpu_ms_a_trial": 1000 * seconds / len(curves),
        "drawn_late_over_random": float(np.mean(late)) / expected_distance(),
    }


def distance(loss: Mapping[str, Any]) -> float:
    """Sum of the squares of the log distances from the optimum."""
    return sum(math.log(loss[name] / best) ** 2 for name, best in OPTIMUM.items())


def expected_distance() -> float:
    """Of a draw that is even on the log scale from 1e-4 to 10."""
    low, high = math.log(1e-4), math.log(10.0)
    return sum(((high - math.log(o)) ** 3 - (low - math.log(o)) ** 3) / (3 * (high - low)) for o in OPTIMUM.values())


def made_up(trial: Trial, fitted: Fit, raised: float) -> Curve:
    """A curve of the trial's class, with ln rate raised by so much."""
    law = next(law for law in fitted.classes if law.complexity_class == trial.complexity_class)
    source = np.random.default_rng(number_of(trial.trial_id))
    (curve,) = draw(replace(fitted, classes=(law,)), source, RUNGS[0], configurations=1, seeds=1)
    rates = tuple(None if pct is None else 100 * ((1 + pct / 100) * math.exp(raised) - 1) for pct in curve.bd_rate_pct)
    logs = tuple(ratio + raised for ratio in curve.log_lagrangian_ratio)
    return replace(curve, trial_id=trial.trial_id, bd_rate_pct=rates, log_lagrangian_ratio=logs)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=count, default=10_000)
    parser.add_argument("--slots", type=count, default=1000)
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
