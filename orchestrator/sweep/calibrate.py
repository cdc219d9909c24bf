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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import ray

from orchestrator.crops import plan_crops
from orchestrator.features.fill import fill
from orchestrator.features.key import plan_features
from orchestrator.features.ledger import read_ledger
from orchestrator.registry import Registry
from orchestrator.spec import Spec, Trial
from orchestrator.store import Store
from orchestrator.sweep import records
from orchestrator.sweep.account import Account
from orchestrator.sweep.anchor import code, measure_complexity, measure_teacher
from orchestrator.sweep.cluster import connected, trials_at_once
from orchestrator.sweep.forecast import Calibration, Filling, Pace, Size, lines
from orchestrator.sweep.gang import Driver, Gang
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.planned import processors, remember, work_of
from orchestrator.sweep.run import channel_bits_of
from orchestrator.sweep.score import Anchor
from orchestrator.sweep.trial import resources

WARM, TIMED = 5, 15  # steps
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
        started = {"planning_s": account.seconds["planning"], "ray_s": time.time() - began}
        measured, complexity = calibrate(plan, at_once, started, say)
        remember(plan, measured)
        for line in lines(work_of(plan, complexity, at_once), measured):
            say(line)


def calibrate(plan: Plan, at_once: int, started: Mapping[str, Any], say: Say) -> tuple[Calibration, Complexity]:
    """Ray must run.

    Args:
        plan: of the sweep.
        at_once: gangs side by side.
        started: planning_s and ray_s.
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
        options = dict.fromkeys([side_by_side, *_options(plan.spec, cpus)])
        with _started(plan.spec, 1):  # a machine's first gang compiles what DeepSpeed sends by on CPUs
            pass
        found: dict[tuple[int, int], _Gangs] = {}
        for ranks, gangs in options:
            say(f"calibration: {gangs} x {ranks} ranks")
            wanted = picked if (ranks, gangs) == side_by_side else _extremes(picked, complexity)
            found[ranks, gangs] = _train(small, scratch, ranks, gangs, wanted)
        main = found[side_by_side]
        say("calibration: bitstreams and registry")
        folder = scratch / f"{side_by_side[0]}-0"
        weights = {each.complexity_class: folder.read(records.weights_file(each.trial_id)) for each in picked}
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
        if (ranks, gangs) in _options(plan.spec, cpus)
    ]
    return (
        Calibration(
            cpus=cpus,
            gpus=gpus,
            gang_s=main.start_s,
            sizes=tuple(sizes),
            paces=tuple(paces),
            **started,
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
    folder = Path(results.url.removeprefix("file://")) if results.url.startswith("file://") else None
    lacking = [each for each in (folder, *folder.parents) if not each.exists()] if folder else []
    try:
        yield scratch
    finally:
        if folder is None:
            for name in scratch.list():
                scratch.delete(name)
        else:
            shutil.rmtree(scratch.url.removeprefix("file://"), ignore_errors=True)
            with suppress(OSError):  # another run has written there meanwhile
                for each in lacking:
                    each.rmdir()


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


def _options(spec: Spec, cpus: int) -> list[tuple[int, int]]:
    """Ranks a gang and gangs of two ways to use the same CPUs: two gangs, or one of twice the ranks."""
    ranks, batch_size = spec.training.ranks_per_trial, spec.training.batch_size
    half = ranks if 2 * ranks <= cpus and batch_size % (2 * ranks) == 0 else ranks // 2
    return [(half, 2), (2 * half, 1)] if half and (half == ranks or 2 * half == ranks) else []


@dataclass(frozen=True, kw_only=True)
class _Gangs:
    """Gangs side by side: seconds of their start, and trial -> figures as of `Size`, the mean over the gangs."""

    start_s: float
    trials: dict[str, dict[str, float]]


def _train(plan: Plan, scratch: Store, ranks: int, gangs: int, trials: Sequence[Trial]) -> _Gangs:
    """The trials' first steps, each trial on all gangs at the same time."""
    training = plan.spec.training.model_copy(update={"ranks_per_trial": ranks})
    spec, store = plan.spec.model_copy(update={"training": training}), scratch / "store"
    bits = channel_bits_of(plan, store)
    began = time.time()
    with _started(spec, gangs) as running, ThreadPoolExecutor(gangs) as pool:
        start_s = time.time() - began

        def measured(trial: Trial) -> dict[str, float]:
            data = {
                "store_url": store.url,
                "plan": plan.crops,
                "pixels_plan": plan.pixels,
                "feature_plan": plan.features[trial.teacher] if trial.teacher else None,
                "channel_bits": bits.get(trial.trial_id),
                "validation": plan.validation,
            }
            steps = [
                pool.submit(_steps, gang, spec, trial, data, scratch / f"{ranks}-{place}")
                for place, gang in enumerate(running)
            ]
            found = [each.result() for each in steps]
            return {name: fmean(each[name] for each in found) for name in found[0]}

        fresh = measured(trials[0])  # in new processes, which prepare what later trials find
        found = {trial.trial_id: measured(trial) for trial in trials}
    warm = found[trials[0].trial_id]
    start_s += max(0.0, fresh["build_s"] + fresh["first_s"] - warm["build_s"] - warm["first_s"])
    return _Gangs(start_s=start_s, trials=found)


@contextmanager
def _started(spec: Spec, gangs: int) -> Iterator[list[Gang]]:
    """Gangs in placement groups of their own, as a trial has one."""
    training, driver = spec.training, Driver.here()
    groups = [resources(spec)() for _ in range(gangs)]
    running: list[Gang] = []
    try:
        ray.get([group.ready() for group in groups])
        with ThreadPoolExecutor(gangs) as pool:
            starts = [
                pool.submit(
                    Gang,
                    size=training.ranks_per_trial,
                    threads=training.threads_per_rank,
                    driver=driver,
                    placement_group=group,
                )
                for group in groups
            ]
        running += [each.result() for each in starts]
        yield running
    finally:
        for gang in running:
            gang.kill()
        for group in groups:
            ray.util.remove_placement_group(group)


def _steps(gang: Gang, spec: Spec, trial: Trial, data: Mapping[str, Any], run: Store) -> dict[str, float]:
    """Figures of `Size`; the trial's weights stay in the folder `run`."""
    batch_size, weights = spec.training.batch_size, records.weights_file(trial.trial_id)
    began = time.time()
    gang.call("build", spec, trial, data, run, None)
    build_s = time.time() - began
    first, second = (
        gang.call("segment", steps * batch_size, run, weights, f"checkpoints/{trial.trial_id}/{steps}")
        for steps in (WARM, WARM + TIMED)
    )
    answer, images = second[0], TIMED * batch_size
    image_s, wait_s = answer["training_s"] / images, answer["data_wait_s"] / images
    first_s = max(0.0, first[0]["training_s"] - WARM * batch_size * image_s)
    return {
        "build_s": build_s,
        "first_s": first_s,
        "first_wait_s": min(first_s, first[0]["data_wait_s"]),
        "image_s": image_s,
        "wait_s": wait_s,
        "validation_s": answer["validation_s"],
        "saving_s": answer["saving_s"],
        "checkpoint_bytes": sum(each["bytes"]["checkpoint"] for each in second),
        "checkpoint_files": sum(len(each["files"]) for each in second),
        "weights_bytes": answer["bytes"]["weights"],
    }


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
        entries = []
        for name, trial in (("first", trials[0]), ("second", trials[0])):
            (folder / name).write_bytes(weights[trial.complexity_class])
            record = records.fresh(trial, complexity[trial.complexity_class]) | {"trial_id": name, "status": "finished"}
            entries.append(record | {"weights": name, "weights_digest": name, "bd_rate_pct": 0.0, "points": []})
        marks = [time.time()]
        registry = Registry(folder, f"sqlite:///{folder / 'mlflow.db'}")
        for act in (registry.log_trials, registry.register_front):
            for entry in entries:
                act([entry])
                marks.append(time.time())
    first_run_s, run_s, first_version_s, version_s = (late - early for early, late in pairwise(marks))
    fixed_s = max(0.0, first_run_s - run_s) + max(0.0, first_version_s - version_s)
    return {"registry_s": fixed_s, "run_s": run_s, "version_s": version_s}


def _silent(line: str) -> None:
    pass
