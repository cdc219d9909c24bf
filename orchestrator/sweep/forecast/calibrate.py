"""Measures the parts of a sweep, each once on little data, with the code that the sweep runs.

Everything is written to a folder `.plan-...` beside the run folder, where every node sees it, and removed at the end.
The run folder, the feature store and the user's registry are not changed.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from orchestrator.distill.trial_data import start_key
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.fill import answer_of, fill
from orchestrator.features.format.key import plan_features
from orchestrator.features.format.ledger import read_ledger
from orchestrator.logs import warn
from orchestrator.photographs.crops import plan_crops
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.place import free_bytes
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected, trials_at_once
from orchestrator.sweep.forecast.calibrate_gangs import (
    TIMED_STEPS,
    WARM_UP_STEPS,
    TimedTrials,
    layouts_to_compare,
    time_trials,
    weights_name,
)
from orchestrator.sweep.forecast.calibrate_publishing import time_coding, time_registry
from orchestrator.sweep.forecast.calibration import (
    AnchorSeconds,
    Calibration,
    CodingCost,
    FillSeconds,
    GangLayout,
    StartSeconds,
    StudentCost,
)
from orchestrator.sweep.forecast.text import lack_of_space, lines
from orchestrator.sweep.forecast.work import processors, remember, work_of
from orchestrator.sweep.front.anchor import measure_complexity, measure_teacher
from orchestrator.sweep.plan import Plan, check_servers
from orchestrator.sweep.preemption import SigtermHandler
from orchestrator.sweep.settle import as_begun, settle
from orchestrator.sweep.starts import begin_starts

MAX_TIMED_GANGS = 4  # started to measure a trial's costs
REMOVALS, REMOVAL_PAUSE_S = 25, 0.2  # tries to remove what workers may still write to
Say = Callable[[str], None]


def show_plan(spec: Spec, say: Say) -> None:
    """Measure, print the forecast, and keep the calibration for the sweep.

    Args:
        spec: with absolute paths (`Spec.resolved`).
        say: takes a line.

    Raises:
        SpecError, WeightsError, PhotographError, CropError, StoreError: before anything is measured.
        RankError: a student cannot be trained.
        Preempted: SIGTERM.
    """
    began = time.monotonic()
    plan = Plan.of(as_begun(spec, Store(spec.results) / spec.name))
    check_servers(Store(plan.spec.results), Store(plan.spec.store))
    planned = time.monotonic()
    sigterm = SigtermHandler(spec.preemption.grace_s)
    # the folder is removed when Ray, and with it all that writes there, has ended
    with sigterm.installed(), scratch_beside(plan.spec) as scratch, connected():
        sigterm.install()
        plan = settle(plan, say)
        at_once = trials_at_once(plan.spec)
        measured, complexity = calibrate(plan, scratch, at_once, planned - began, time.monotonic() - planned, say)
        remember(plan, measured)
        work, store = work_of(plan, complexity, at_once), plan.spec.store
        for line in lines(work, measured):
            say(line)
        if short := lack_of_space(work, measured, store, free_bytes(store)):
            warn(short)


def calibrate(
    plan: Plan, scratch: Store, at_once: int, planning_s: float, ray_s: float, say: Say
) -> tuple[Calibration, Mapping[str, Complexity]]:
    """Measure every part of a sweep. Ray must run.

    Args:
        plan: of the sweep.
        scratch: from `scratch_beside`.
        at_once: gangs that train at the same time.
        planning_s, ray_s: seconds that the plan and Ray's start took.
        say: takes a line of progress.

    Returns:
        The calibration, and the complexity of each class.

    Raises:
        RankError: a student cannot be trained.
    """
    cpus, gpus = processors()
    say("calibration: anchor")
    anchor, complexity, anchor_seconds = _anchor(plan)
    say("calibration: features")
    small, fill_start_s, fills = _features(plan, scratch / "store", gpus or cpus, cpus)
    picked = _picked(plan, complexity)
    ends = _extremes(picked, complexity)
    refit_s = _starts(plan, picked, scratch / "store", cpus)
    main_layout = (plan.spec.training.ranks, min(at_once, MAX_TIMED_GANGS))
    compared = layouts_to_compare(plan.spec)
    timed: dict[tuple[int, int], TimedTrials] = {}
    for ranks, gangs in dict.fromkeys([main_layout, *compared]):
        say(f"calibration: {gangs} x {ranks} ranks")
        wanted = picked if (ranks, gangs) == main_layout else ends
        timed[ranks, gangs] = time_trials(small, scratch, ranks, gangs, wanted)
    say("calibration: bitstreams and registry")
    folder = scratch / f"{main_layout[0]}-0"
    weights = {trial.complexity_class: folder.read(weights_name(trial)) for trial in picked}
    coding, networks = time_coding(plan, weights, anchor)
    registry = time_registry(weights, picked[0], complexity)
    main = timed[main_layout]
    measured = Calibration(
        cpus=cpus,
        gpus=gpus,
        start=StartSeconds(planning_s=planning_s, ray_s=ray_s, gang_s=main.start_s, refit_s=refit_s),
        anchor=anchor_seconds,
        fill_start_s=fill_start_s,
        fills=fills,
        students=tuple(_student_cost(trial, complexity, main, networks) for trial in picked),
        coding=coding,
        registry=registry,
        layouts=tuple(_layout(ranks, gangs, timed[ranks, gangs], ends) for ranks, gangs in compared),
    )
    return measured, complexity


def _student_cost(
    trial: Trial, complexity: Mapping[str, Complexity], timed: TimedTrials, networks: Mapping[str, CodingCost]
) -> StudentCost:
    return StudentCost(
        family=trial.student.family,
        macs_per_pixel=complexity[trial.complexity_class].macs_per_pixel,
        distilled=trial.teacher is not None,
        training=timed.trials[trial.trial_id],
        coding=networks[trial.complexity_class],
    )


def _layout(ranks: int, gangs: int, timed: TimedTrials, ends: Sequence[Trial]) -> GangLayout:
    seconds = sum(timed.trials[trial.trial_id].image_s for trial in ends) / gangs
    return GangLayout(ranks=ranks, gangs=gangs, seconds=seconds)


@contextmanager
def scratch_beside(spec: Spec) -> Iterator[Store]:
    """A temporary folder beside the run folder, removed with the parents that it needed.

    Ray's workers that write there have to end inside the context. Those of a Ray that was joined may live on for
    moments, so the folder is removed until it is gone.
    """
    results = Store(spec.results)
    scratch = results / f".plan-{secrets.token_hex(4)}"
    parents = [] if results.folder is None else [results.folder, *results.folder.parents]
    new_folders = [folder for folder in parents if not folder.exists()]
    try:
        yield scratch
    finally:
        for _ in range(REMOVALS):
            if _removed(scratch):
                break
            time.sleep(REMOVAL_PAUSE_S)
        with suppress(OSError):  # another run has written there meanwhile
            for folder in new_folders:
                folder.rmdir()


def _removed(scratch: Store) -> bool:
    """Removes what is there; returns whether nothing is left."""
    if scratch.folder is not None:
        shutil.rmtree(scratch.folder, ignore_errors=True)
        return not scratch.folder.exists()
    for name in scratch.list():
        scratch.delete(name)
    return not scratch.list()


def _anchor(plan: Plan) -> tuple[Anchor, Mapping[str, Complexity], AnchorSeconds]:
    """Anchor and complexities by one validation crop, timed in new workers and again in warm ones."""
    rates, students = plan.spec.rate_ladder, plan.students

    def curves() -> list[Any]:
        return [
            measure_teacher.remote(teacher.name, teacher.weights, plan.validation[:1], rates)
            for teacher in plan.spec.teachers
        ]

    began = time.monotonic()
    *measured, complexity = map(answer_of, [*curves(), measure_complexity.remote(students, rates)])
    cold_s = time.monotonic() - began
    began = time.monotonic()
    for reference in curves():
        answer_of(reference)
    warm_s = time.monotonic() - began
    anchor: Anchor = min(measured, key=lambda curve: curve[1])[0]
    seconds = AnchorSeconds(first_crop_s=cold_s, crop_s=warm_s, points=len(anchor.rate_points))
    return anchor, complexity, seconds


def _features(plan: Plan, store: Store, slots: int, cpus: int) -> tuple[Plan, float, tuple[FillSeconds, ...]]:
    """Fill a store for the steps that are timed.

    Args:
        plan: of the sweep.
        store: to be filled.
        slots: that run teachers at the same time.
        cpus: that cut pixels at the same time.

    Returns:
        The plan of the filled store, seconds for workers to start, and the cost of each feature plan.
    """
    rates = len(plan.spec.rate_ladder.lambdas)
    few = _shorter(plan, 2 * rates)
    small = _shorter(plan, (WARM_UP_STEPS + TIMED_STEPS) * plan.spec.training.batch_size)
    start_s = fill(store, few.crops, few.feature_plans, plan.train, _silent).seconds
    fills = []
    for features in small.feature_plans:
        seconds = fill(store, small.crops, [features], plan.train, _silent).seconds
        crops, shards = small.crops.count, len(features.shards)
        slots_of_plan = slots if features.teacher else cpus
        crop_s = seconds / math.ceil(shards / slots_of_plan) * shards / crops
        start_s -= crop_s * few.crops.count / slots_of_plan
        ledger = read_ledger(store, features) or {}
        tap_bytes = {tap: sum(entry.bytes for entry in ledger[tap]) / crops for tap in features.taps}
        fills.append(FillSeconds(title=features.title, crop_s=crop_s, tap_bytes=tap_bytes))
    return small, max(0.0, start_s), tuple(fills)


def _starts(plan: Plan, trials: Sequence[Trial], store: Store, cpus: int) -> float:
    """Make the refitted first weights of the trials that are timed; seconds of one CPU for one of them."""
    names = {plan.start_names[key] for trial in trials if (key := start_key(trial)) is not None}
    if not names:
        return 0.0
    began = time.monotonic()
    begin_starts(replace(plan, starts={name: plan.starts[name] for name in names}), store, _silent).wait()
    return (time.monotonic() - began) / math.ceil(len(names) / cpus)


def _shorter(plan: Plan, count: int) -> Plan:
    """The same sweep with at most `count` crops."""
    rates, settings = len(plan.spec.rate_ladder.lambdas), plan.spec.crops
    shortened = settings.model_copy(update={"count": min(count, plan.crops.count)})
    crops = plan_crops(plan.train, shortened, rates, plan.spec.seed)
    feature_plans = {
        name: plan_features(crops, features.teacher, features.taps) for name, features in plan.features.items()
    }
    return replace(plan, crops=crops, pixels=plan_features(crops), features=feature_plans)


def _picked(plan: Plan, complexity: Mapping[str, Complexity]) -> list[Trial]:
    """The trials to time: of each family the smallest and the largest student, with and without a teacher."""
    first: dict[tuple[str, str, bool], Trial] = {}
    for trial in plan.trials:
        first.setdefault((trial.student.family, trial.complexity_class, trial.teacher is not None), trial)
    alike: dict[tuple[str, bool], list[Trial]] = {}
    for (family, _, distilled), trial in first.items():
        alike.setdefault((family, distilled), []).append(trial)
    return [trial for trials in alike.values() for trial in _ends(trials, complexity)]


def _extremes(picked: Sequence[Trial], complexity: Mapping[str, Complexity]) -> list[Trial]:
    """The trials of the smallest and the largest student, with a teacher if any has one."""
    return _ends([trial for trial in picked if trial.teacher] or picked, complexity)


def _ends(trials: Sequence[Trial], complexity: Mapping[str, Complexity]) -> list[Trial]:
    ordered = sorted(trials, key=lambda trial: complexity[trial.complexity_class].macs_per_pixel)
    return ordered[:1] if ordered[0].complexity_class == ordered[-1].complexity_class else [ordered[0], ordered[-1]]


def _silent(line: str) -> None:
    pass
