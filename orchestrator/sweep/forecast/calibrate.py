"""Measures the parts of a sweep, each once and small, with the code that the sweep runs.

Everything is written below a folder `.plan-...` beside the run folder, where every node sees it, and removed at the
end; the run folder, the feature store and the user's registry are only looked at.
"""

from __future__ import annotations

import math
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray

from orchestrator.features.fill.fill import fill
from orchestrator.features.format.key import plan_features
from orchestrator.features.format.ledger import read_ledger
from orchestrator.photographs.crops import plan_crops
from orchestrator.registry.registry import Registry, database_url
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected, trials_at_once
from orchestrator.sweep.forecast.account import Account
from orchestrator.sweep.forecast.calibrate_gangs import TIMED, WARM, Timed, options, started, time_trials, weights_name
from orchestrator.sweep.forecast.forecast import Calibration, Filling, Pace, Size
from orchestrator.sweep.forecast.text import lines
from orchestrator.sweep.forecast.work import processors, remember, work_of
from orchestrator.sweep.front.anchor import code, measure_complexity, measure_teacher
from orchestrator.sweep.front.score import Anchor
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.run_folder import records

SIDE_BY_SIDE = 4  # gangs at most
Say = Callable[[str], None]
Complexity = Mapping[str, Mapping[str, float]]


def show_plan(spec: Spec, say: Say) -> None:
    """Measures, prints the forecast and keeps the calibration for the sweep.

    Raises:
        As `run_sweep`, before anything is measured; RankError: a student cannot be trained.
    """
    account = Account()
    with account.phase("planning"):
        plan = Plan.of(spec)
    began = time.time()
    with connected():
        at_once = trials_at_once(plan.spec)
        known = {"planning_s": account.seconds["planning"], "ray_s": time.time() - began}
        measured, complexity = calibrate(plan, at_once, known, say)
        remember(plan, measured)
        for line in lines(work_of(plan, complexity, at_once), measured):
            say(line)


def calibrate(plan: Plan, at_once: int, known: Mapping[str, Any], say: Say) -> tuple[Calibration, Complexity]:
    """Ray must run.

    Args:
        plan: of the sweep.
        at_once: gangs side by side.
        known: planning_s and ray_s.
        say: takes a line of progress.

    Returns:
        The figures, and each class's complexity.
    """
    cpus, gpus = processors()
    say("calibration: anchor")
    anchor, complexity, curves = _anchor(plan)
    with _scratch(plan.spec) as scratch:
        say("calibration: features")
        small, filled = _features(plan, scratch / "store", gpus or cpus, cpus)
        picked = _picked(plan, complexity)
        side_by_side = (plan.spec.training.ranks_per_trial, min(at_once, SIDE_BY_SIDE))
        compared = options(plan.spec)
        with started(plan.spec, 1):  # a machine's first gang compiles what DeepSpeed sends by on CPUs
            pass
        found: dict[tuple[int, int], Timed] = {}
        for ranks, gangs in dict.fromkeys([side_by_side, *compared]):
            say(f"calibration: {gangs} x {ranks} ranks")
            wanted = picked if (ranks, gangs) == side_by_side else _extremes(picked, complexity)
            found[ranks, gangs] = time_trials(small, scratch, ranks, gangs, wanted)
        main = found[side_by_side]
        say("calibration: bitstreams and registry")
        folder = scratch / f"{side_by_side[0]}-0"
        weights = {each.complexity_class: folder.read(weights_name(each)) for each in picked}
        coding = _coding(plan, weights, anchor)
        registry = _registry(weights, picked, complexity)
    sizes = [
        Size(
            family=trial.student.family,
            macs_per_pixel=complexity[trial.complexity_class]["macs_per_pixel"],
            distilled=trial.teacher is not None,
            **main.trials[trial.trial_id],
            **coding.networks[trial.complexity_class],
        )
        for trial in picked
    ]
    ends = [trial.trial_id for trial in _extremes(picked, complexity)]
    paces = [
        Pace(ranks=ranks, gangs=gangs, seconds=sum(its.trials[each]["image_s"] for each in ends) / gangs)
        for (ranks, gangs), its in found.items()
        if (ranks, gangs) in compared
    ]
    return (
        Calibration(
            cpus=cpus,
            gpus=gpus,
            gang_s=main.start_s,
            sizes=tuple(sizes),
            paces=tuple(paces),
            **known,
            **curves,
            **filled,
            **coding.figures,
            **registry,
        ),
        complexity,
    )


@contextmanager
def _scratch(spec: Spec) -> Iterator[Store]:
    results = Store(spec.results)
    scratch = results / f".plan-{secrets.token_hex(4)}"
    lacking = [] if results.folder is None else [results.folder, *results.folder.parents]
    lacking = [folder for folder in lacking if not folder.exists()]
    try:
        yield scratch
    finally:
        if scratch.folder is None:
            for name in scratch.list():
                scratch.delete(name)
        else:
            shutil.rmtree(scratch.folder, ignore_errors=True)
            with suppress(OSError):  # another run has written there meanwhile
                for folder in lacking:
                    folder.rmdir()


def _anchor(plan: Plan) -> tuple[Anchor, Complexity, dict[str, Any]]:
    """With one validation crop, in workers that start, and again in warm ones."""
    rates, students = plan.spec.rate_ladder, {trial.complexity_class: trial.student for trial in plan.trials}

    def curves() -> list[Any]:
        return [measure_teacher.remote(e.name, e.weights, plan.validation[:1], rates) for e in plan.spec.teachers]

    began = time.time()
    *found, complexity = ray.get([*curves(), measure_complexity.remote(students, rates)])
    cold_s = time.time() - began
    began = time.time()
    ray.get(curves())
    warm_s = time.time() - began
    anchor: Anchor = min(found, key=lambda each: each[1])[0]
    points = len(anchor.rate_points)
    return anchor, complexity, {"anchor_s": cold_s, "anchor_crop_s": warm_s, "anchor_points": points}


def _features(plan: Plan, store: Store, slots: int, cpus: int) -> tuple[Plan, dict[str, Any]]:
    """A filled store for the steps that are measured, with the plan that belongs to it; fill_s and fills."""
    rates = len(plan.spec.rate_ladder.lambdas)
    few = _shorter(plan, 2 * rates)
    small = _shorter(plan, (WARM + TIMED) * plan.spec.training.batch_size)
    fill_s = fill(store, few.crops, few.feature_plans, plan.train, _silent).seconds
    fills = []
    for features in small.feature_plans:
        seconds = fill(store, small.crops, [features], plan.train, _silent).seconds
        crops, shards = len(small.crops.crops), len(features.shards)
        its_slots = slots if features.teacher else cpus
        crop_s = seconds / math.ceil(shards / its_slots) * shards / crops
        fill_s -= crop_s * len(few.crops.crops) / its_slots
        ledger = read_ledger(store, features) or {}
        size = {tap: sum(entry.bytes for entry in ledger[tap]) / crops for tap in features.taps}
        fills.append(Filling(title=features.title, crop_s=crop_s, tap_bytes=size))
    return small, {"fill_s": max(0.0, fill_s), "fills": tuple(fills)}


def _shorter(plan: Plan, count: int) -> Plan:
    """The same sweep over fewer crops."""
    rates, settings = len(plan.spec.rate_ladder.lambdas), plan.spec.crops
    shortened = settings.model_copy(update={"count": min(count, len(plan.crops.crops))})
    crops = plan_crops(plan.train, shortened, rates, plan.spec.seed)
    its = {name: plan_features(crops, each.teacher, each.taps) for name, each in plan.features.items()}
    return replace(plan, crops=crops, pixels=plan_features(crops), features=its)


def _picked(plan: Plan, complexity: Complexity) -> list[Trial]:
    """Of each family the smallest and the largest student, with a teacher and without, as far as there are such."""
    first: dict[tuple[str, str, bool], Trial] = {}
    for trial in plan.trials:
        first.setdefault((trial.student.family, trial.complexity_class, trial.teacher is not None), trial)
    alike: dict[tuple[str, bool], list[Trial]] = {}
    for (family, _, distilled), trial in first.items():
        alike.setdefault((family, distilled), []).append(trial)
    return [trial for each in alike.values() for trial in _ends(each, complexity)]


def _extremes(picked: Sequence[Trial], complexity: Complexity) -> list[Trial]:
    """The smallest and the largest, with a teacher if any has one."""
    return _ends([trial for trial in picked if trial.teacher] or picked, complexity)


def _ends(trials: Sequence[Trial], complexity: Complexity) -> list[Trial]:
    ordered = sorted(trials, key=lambda trial: complexity[trial.complexity_class]["macs_per_pixel"])
    return ordered[:1] if ordered[0].complexity_class == ordered[-1].complexity_class else [ordered[0], ordered[-1]]


@dataclass(frozen=True, kw_only=True)
class _Coding:
    """Fields of `Calibration`, and class -> code_s and stream_s of `Size`."""

    figures: dict[str, Any]
    networks: dict[str, dict[str, float]]


def _coding(plan: Plan, weights: Mapping[str, bytes], anchor: Anchor) -> _Coding:
    """Of one validation crop.

    Args:
        plan: of the sweep.
        weights: class -> a student of it.
        anchor: its teacher is coded too.
    """

    def seconds(network: bytes, rate_points: Sequence[int | float]) -> float:
        began = time.time()
        ray.get(code.remote(network, plan.validation[:1], rate_points))
        return time.time() - began

    def parts(network: bytes, rate_points: Sequence[int | float]) -> dict[str, float]:
        one, all_s = seconds(network, rate_points[:1]), seconds(network, rate_points)
        stream_s = max(0.0, all_s - one) / max(1, len(rate_points) - 1)
        return {"code_s": max(0.0, one - stream_s), "stream_s": stream_s}

    rate_points = list(range(len(plan.spec.rate_ladder.lambdas)))
    teacher = next(each.weights for each in plan.spec.teachers if each.name == anchor.teacher)
    began = time.time()
    ray.get([code.remote(network, plan.validation[:1], rate_points[:1]) for network in weights.values()])
    cold_s = time.time() - began
    networks = {name: parts(network, rate_points) for name, network in weights.items()}
    its = parts(Path(teacher).read_bytes(), list(anchor.rate_points))
    warm_s = max(each["code_s"] + each["stream_s"] for each in networks.values())
    figures = {
        "coding_s": max(0.0, cold_s - warm_s),
        "anchor_code_s": its["code_s"],
        "anchor_stream_s": its["stream_s"],
    }
    return _Coding(figures=figures, networks=networks)


def _registry(weights: Mapping[str, bytes], trials: Sequence[Trial], complexity: Complexity) -> dict[str, Any]:
    """A registry of its own: two trials, then two versions; the first of each makes experiment and model."""
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = Path(elsewhere) / "calibration"
        folder.mkdir()
        trial, size = trials[0], complexity[trials[0].complexity_class]
        ended = [
            records.fresh(trial, size, "calibration").changed(trial_id=name, status="finished")
            for name in ("first", "second")
        ]
        marks = [time.time()]
        registry = Registry(folder, database_url(folder / "mlflow.db"))
        for record in ended:
            registry.log_trials([record])
            marks.append(time.time())
        for record in ended:
            name = record.trial_id
            (folder / name).write_bytes(weights[trial.complexity_class])
            of_weights = {"weights": name, "weights_digest": name, "bd_rate_pct": 0.0, "points": []}
            registry.register_front([record.model_dump(mode="json") | of_weights])
            marks.append(time.time())
    first_run_s, run_s, first_version_s, version_s = (late - early for early, late in pairwise(marks))
    fixed_s = max(0.0, first_run_s - run_s) + max(0.0, first_version_s - version_s)
    return {"registry_s": fixed_s, "run_s": run_s, "version_s": version_s}


def _silent(line: str) -> None:
    pass
