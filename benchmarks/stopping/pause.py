"""Pausing the losers of a rung beside stopping them: hypervolume at equal images, over grids that were really trained.

    python -m benchmarks.stopping.pause

The recorded grids of `sweep` (`recorded_curves.json`): 16 trials of 4 student sizes, once a seed, every trial trained
to its end. The rules run over them by simulation, which is exact: a trial's values do not depend on what else is
trained. After every report the front of all last values is compared with the full grid's: so a rule has a hypervolume
for every number of images that it has spent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.stopping.hypervolume import Point, hypervolume, reference
from benchmarks.stopping.recorded import RECORDED, Recorded, load
from orchestrator.evaluation.front import fronts
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.simulate import Curve, Listed, SimulatedSweep, simulate

RULES: tuple[StoppingRule, ...] = tuple(name for name in get_args(StoppingRule) if name != "none")
RUNGS, REDUCTION = (160, 480, 1440), 3
BUDGETS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)  # of the full grid's images
Trace = list[tuple[float, float]]  # shares of the grid's images and hypervolume, after each report


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", default=str(RECORDED), metavar="FILE")
    parser.add_argument("--slots", type=count, default=2)
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    machine, recorded = facts(), load(options.recorded)
    seeds = sorted({row.seed for row in recorded})
    grids = {seed: [curve_of(row) for row in recorded if row.seed == seed] for seed in seeds}
    traces = {name: [traced(grids[seed], name, options.slots) for seed in seeds] for name in RULES}
    figures = {
        "settings": {"rungs": RUNGS, "reduction": REDUCTION, "slots": options.slots, "seeds": seeds},
        "at_the_end": {
            name: [{"images_share": trace[-1][0], "hypervolume_share": trace[-1][1]} for trace in of_rule]
            for name, of_rule in traces.items()
        },
        "at_equal_images": {
            name: {str(budget): [value_at(trace, budget) for trace in of_rule] for budget in BUDGETS}
            for name, of_rule in traces.items()
        },
        "goals": goals(traces),
    }
    write(options.results, "pause", machine, figures)
    return 0


def goals(traces: Mapping[StoppingRule, Sequence[Trace]]) -> dict[str, dict[str, float | str]]:
    """The mean over seeds of the hypervolume of `pause` at the images that the other rule spends, over the other's."""
    found: dict[str, dict[str, float | str]] = {}
    for other in ("stratified", "asha"):
        ratios = [
            value_at(paused, stopped[-1][0]) / stopped[-1][1]
            for paused, stopped in zip(traces["pause"], traces[other], strict=True)
        ]
        found[f"pause_over_{other}_at_equal_images"] = {"value": statistics.fmean(ratios), "goal": 1.0, "at": "least"}
    return found


def curve_of(row: Recorded) -> Curve:
    """A recorded trial at the rungs."""
    places = [row.images_seen.index(images) for images in RUNGS]
    seconds = [sum(row.seconds[before:place]) for before, place in _segments(places)]
    return Curve(
        trial_id=row.configuration,
        complexity_class=row.complexity_class,
        macs_per_pixel=row.macs_per_pixel,
        bd_rate_pct=tuple(row.bd_rate_pct[place] for place in places),
        log_lagrangian_ratio=tuple(row.log_lagrangian_ratio[place] for place in places),
        seconds=tuple(seconds),
    )


def _segments(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The recorded segments between two rungs, as slices."""
    before = 0
    for place in places:
        yield before, place + 1
        before = place + 1


def traced(grid: Sequence[Curve], name: StoppingRule, slots: int) -> Trace:
    """What a rule has spent and kept, after each report."""
    rule = RungRule(rule=name, rungs=RUNGS, reduction=REDUCTION)
    return trace_of(grid, simulate(Listed(grid), lambda curve: curve, rule, slots))


def trace_of(grid: Sequence[Curve], outcome: SimulatedSweep) -> Trace:
    """The same, of a simulated sweep."""
    last = [(curve.bd_rate_pct[-1], curve.macs_per_pixel) for curve in grid]
    final: list[Point] = [(rate, macs) for rate, macs in last if rate is not None]
    worst = reference([point for point, number in zip(final, fronts(final), strict=True) if number == 0])
    whole, budget = hypervolume(final, worst), len(grid) * RUNGS[-1]
    known: dict[str, Point] = {}
    images, trace = 0, []
    for report, _ in sorted(outcome.decisions, key=lambda entry: entry[1].sequence):
        place = RUNGS.index(report.images_seen)
        images += report.images_seen - (RUNGS[place - 1] if place else 0)
        if report.bd_rate_pct is not None:
            known[report.trial_id] = (report.bd_rate_pct, report.macs_per_pixel)
        trace.append((images / budget, hypervolume(known.values(), worst) / whole))
    return trace


def value_at(trace: Trace, budget: float) -> float:
    """The hypervolume when at most so many images were spent; 0 before the first report."""
    return max((value for images, value in trace if images <= budget + 1e-9), default=0.0)


if __name__ == "__main__":
    sys.exit(exit_code(main))
