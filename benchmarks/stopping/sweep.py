"""Early stopping against the full grid, for real: images trained, and what is left of the front's hypervolume.

    python -m benchmarks.stopping.sweep --work FOLDER [--seeds 0 1 2]

The grid of `sweep.yaml`, 16 trials, is trained to the end once a seed, by `jobs/sweep_feds.py`; each seed has other
crops, another order and other noise. Rules are replayed over its curves (`orchestrator.sweep.choose.simulate`, the
trials in the sweep's order on two slots), and on the first seed each of RULES, and Ray's own ASHA, runs for real; ours
after a `--plan`: what was planned stands beside what it took.

Shares are of the full grid's: hypervolume of the front of all trials' last values, stopped ones included, and images.
Axes are BD-rate in percent (validation photographs, estimated rates) and ln MACs per pixel; the reference is the worst
of the full grid's front, a tenth worse, fixed before anything is compared. The oracle knows the grid's front before it
starts. Sweeps go on where they were cut off, and those that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, write
from benchmarks.stopping.rays_asha import RaysAsha
from benchmarks.stopping.recorded import kept_rungs
from benchmarks.stopping.rules import GOAL_HYPERVOLUME, GOAL_IMAGES, RULES, Setting, shares
from orchestrator.evaluation.front import pareto_front
from orchestrator.results.account import ACCOUNT, FORECAST, Account, Forecast, Forecasts
from orchestrator.results.files import needed, read_file
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import StoppingRule
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.simulate import Curve, Ended, Listed, SimulatedSweep, oracle, simulate
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord

SPEC = Path(__file__).with_name("sweep.yaml")
RUNGS, REDUCTION = Setting().rungs, Setting().reduction
SLOTS = 2
RAYS = "ray-asha"


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, work = facts(), Path(options.work).absolute()
    first = options.seeds[0]
    grids = {seed: _sweep(work, f"grid-{seed}", seed, options.set, plan=seed == first) for seed in options.seeds}
    curves = {seed: [_curve(record) for record in read_trials(grid)] for seed, grid in grids.items()}
    figures: dict[str, Any] = {
        "settings": {"seeds": options.seeds, "rungs": RUNGS, "reduction": REDUCTION, "set": options.set},
        "goal": {"hypervolume_share": GOAL_HYPERVOLUME, "images_share": GOAL_IMAGES},
        "grid": {str(seed): _described(grid) for seed, grid in grids.items()},
        "replayed": {str(seed): replayed(grid_curves) for seed, grid_curves in curves.items()},
        "real": {},
    }
    ruled: dict[str, StoppingRule] = {**{rule: rule for rule in RULES}, RAYS: "asha"}
    for name, rule in ruled.items():
        early = json.dumps({"rule": rule, "rungs": RUNGS, "reduction": REDUCTION})
        sets = [*options.set, f"early_stopping={early}"]
        run = _sweep(work, f"{name}-{first}", first, sets, plan=name != RAYS)
        figures["real"][name] = real(run, name, curves[first])
        print(json.dumps({name: figures["real"][name]}), flush=True)
        write(options.results, "sweep", machine, figures)
    return 0


def replayed(curves: Sequence[Curve]) -> dict[str, Any]:
    """Every rule over the curves of a full grid; Ray's too."""
    by_rule = {
        name: asdict(shares(curves, RUNGS, simulate(Listed(curves), lambda curve: curve, _rule(name), SLOTS)))
        for name in (*RULES, RAYS)
    }
    return by_rule | {"oracle": asdict(shares(curves, RUNGS, oracle(curves, RUNGS)))}


def real(run: Store, name: str, grid: Sequence[Curve]) -> dict[str, Any]:
    """A sweep that was stopped early beside the grid of its seed, and what it took beside its plan."""
    kept = {curve.trial_id: curve for curve in grid}
    ended = []
    differing = 0
    for record in read_trials(run):
        curve = _curve(record)
        count, full = len(curve.bd_rate_pct), kept[curve.trial_id]
        differing += curve.bd_rate_pct != full.bd_rate_pct[:count]
        ended.append(Ended(curve=curve, rungs=count))
    images = sum(RUNGS[trial.rungs - 1] for trial in ended)
    outcome = SimulatedSweep(images=images, seconds=0.0, decisions=(), ended=tuple(ended))
    account = needed(run, ACCOUNT, Account)
    return {
        **asdict(shares(list(kept.values()), RUNGS, outcome)),
        "trials_stopped": sum(trial.rungs < len(RUNGS) for trial in ended),
        "trials_that_differ_from_the_grid": differing,
        "decisions_replayed_alike": _replayed_alike(run, name),
        "wall_s": account.wall_s,
        "plan": None if name == RAYS else expected_and_taken(run),  # it is made for our rules
    }


def expected_and_taken(run: Store) -> dict[str, dict[str, float]] | None:
    """What the sweep took, beside what was expected; None if there is no forecast."""
    forecasts, account = read_file(run, FORECAST, Forecasts), read_file(run, ACCOUNT, Account)
    if forecasts is None or account is None:
        return None

    def figures(of: Account | Forecast) -> dict[str, float]:
        return {"wall_s": of.wall_s, "images": of.images, **of.bytes.model_dump()}

    expected = figures(forecasts.expected)
    return {
        name: {"planned": expected[name], "taken": value, "taken_over_planned": value / expected[name]}
        for name, value in figures(account).items()
        if expected[name]
    }


def _replayed_alike(run: Store, name: str) -> bool:
    """Whether a fresh rule, given the recorded reports in their order, decides each as the sweep did."""
    entries = [entry for record in read_trials(run) for entry in records.decisions(record)]
    ordered, rule = sorted(entries, key=lambda entry: entry[1].sequence), _rule(name)
    return all(rule.decide(report) == decision for report, decision in ordered)


def _rule(name: str) -> RungRule:
    if name == RAYS:
        return RaysAsha(rule="asha", rungs=RUNGS, reduction=REDUCTION)
    return Setting().rule(name)  # type: ignore[arg-type]


def _sweep(work: Path, name: str, seed: int, sets: Sequence[str], *, plan: bool) -> Store:
    """Runs it unless it is done; returns its run folder."""
    run = Store(str(work / "runs" / name))
    account = read_file(run, ACCOUNT, Account)
    if account is not None and account.finished:
        return run
    program = ["-m", "benchmarks.stopping.rays_asha"] if name.startswith(RAYS) else ["jobs/sweep_feds.py"]
    overrides = [f"name={name}", f"seed={seed}", f"store={work / 'store'}", f"results={work / 'runs'}", *sets]
    words = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, *program, "--spec", str(SPEC), *words]
    if plan and not run.list("trials"):
        subprocess.run([*command, "--plan"], cwd=ROOT, check=True)
    subprocess.run(command, cwd=ROOT, check=True)
    return run


def _curve(record: TrialRecord) -> Curve:
    """What the trial measured at RUNGS, as far as it was trained."""
    kept = list(kept_rungs(record, lambda rung: rung.images_seen in RUNGS))
    return Curve(
        trial_id=record.trial_id,
        complexity_class=record.complexity_class,
        macs_per_pixel=record.macs_per_pixel,
        bd_rate_pct=tuple(rung.bd_rate_pct for rung, _ in kept),
        log_lagrangian_ratio=tuple(rung.log_lagrangian_ratio for rung, _ in kept),
        seconds=tuple(seconds for _, seconds in kept),
    )


def _described(run: Store) -> dict[str, Any]:
    trials = read_trials(run)
    last = {trial.trial_id: trial.rungs[-1].bd_rate_pct for trial in trials}
    ended = [Ended(curve=curve, rungs=len(curve.bd_rate_pct)) for curve in map(_curve, trials)]
    front = pareto_front([trial for trial in ended if trial.bd_rate_pct is not None])
    return {
        "images": sum(trial.images_seen for trial in trials),
        "bd_rate_pct": last,
        "front": [trial.trial_id for trial in front],
        "plan": expected_and_taken(run),
    }


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", required=True, metavar="FOLDER", help="stores and runs; keep it to go on later")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the specification")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
