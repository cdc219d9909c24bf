"""Times a few steps of some trials on gangs as a sweep runs them; a part of the calibration."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import ray

from orchestrator.distill.trial_data import TrialData
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.forecast.calibration import TrainingCost
from orchestrator.sweep.gang.gang import Gang
from orchestrator.sweep.gang.rank import Driver, RankSegment
from orchestrator.sweep.gang.sweep import resources
from orchestrator.sweep.plan import Plan, shared_data

WARM_UP_STEPS, TIMED_STEPS = 5, 15


@dataclass(frozen=True, kw_only=True)
class TimedTrials:
    """What was measured on gangs that ran at the same time."""

    start_s: float  # until all gangs were ready
    trials: dict[str, TrainingCost]  # trial id -> mean over the gangs


def time_trials(plan: Plan, scratch: Store, ranks: int, gangs: int, trials: Sequence[Trial]) -> TimedTrials:
    """Time the trials' first steps, each trial on all gangs at the same time.

    Args:
        plan: of the store in the scratch folder.
        scratch: the scratch folder; a folder for each gang is written there.
        ranks: per gang.
        gangs: how many.
        trials: to be timed.

    Raises:
        RankError: a trial cannot be trained.
    """
    spec, store = _with_ranks(plan.spec, ranks), scratch / "store"
    shared = shared_data(plan, store)
    began = time.monotonic()
    with started(spec, gangs) as running, ThreadPoolExecutor(gangs) as pool:
        start_s = time.monotonic() - began

        def measured(trial: Trial) -> TrainingCost:
            steps = [
                pool.submit(_steps, gang, spec, trial, shared.of(trial), scratch / f"{ranks}-{index}")
                for index, gang in enumerate(running)
            ]
            costs = [step.result() for step in steps]
            names = TrainingCost.model_fields
            return TrainingCost(**{name: fmean(getattr(cost, name) for cost in costs) for name in names})

        fresh = measured(trials[0])  # the first trial in new processes, where caches are empty
        costs = {trial.trial_id: measured(trial) for trial in trials}
    warm = costs[trials[0].trial_id]
    start_s += max(0.0, fresh.build_s + fresh.first_s - warm.build_s - warm.first_s)
    return TimedTrials(start_s=start_s, trials=costs)


@contextmanager
def started(spec: Spec, gangs: int) -> Iterator[list[Gang]]:
    """Running gangs while the context lasts, each in a placement group as a trial has one.

    Args:
        spec: of the sweep.
        gangs: how many.

    Raises:
        RankError: a gang did not start.
    """
    training, driver = spec.training, Driver.here()
    groups = [resources(spec)() for _ in range(gangs)]
    running: list[Gang] = []
    try:
        ray.get([group.ready() for group in groups])
        with ThreadPoolExecutor(gangs) as pool:
            starts = [
                pool.submit(
                    Gang,
                    size=training.ranks,
                    threads=training.threads_per_rank,
                    driver=driver,
                    gpus=training.gpus,
                    placement_group=group,
                )
                for group in groups
            ]
        running += [start.result() for start in starts]
        yield running
    finally:
        for gang in running:
            gang.kill()
        for group in groups:
            ray.util.remove_placement_group(group)


def weights_name(trial: Trial) -> str:
    """The path of a timed trial's weights in its gang's folder."""
    return f"weights/{trial.trial_id}.safetensors"


def _steps(gang: Gang, spec: Spec, trial: Trial, data: TrialData, run: Store) -> TrainingCost:
    """A trial's costs on one gang; its weights stay in the folder `run`."""
    batch_size, weights = spec.training.batch_size, weights_name(trial)
    began = time.monotonic()
    gang.call("build", spec, trial, data, run, None)
    build_s = time.monotonic() - began

    def segment(steps: int, until: int) -> list[RankSegment]:
        gang.train(steps * batch_size, until * batch_size, batch_size, lambda: False)
        return gang.call("finish", run, weights, f"checkpoints/{trial.trial_id}/{until}")

    first, second = segment(0, WARM_UP_STEPS), segment(WARM_UP_STEPS, WARM_UP_STEPS + TIMED_STEPS)
    answer, images = second[0], TIMED_STEPS * batch_size
    image_s, wait_s = answer.training_s / images, answer.data_wait_s / images
    first_s = max(0.0, first[0].training_s - WARM_UP_STEPS * batch_size * image_s)
    return TrainingCost(
        build_s=build_s,
        first_s=first_s,
        first_wait_s=min(first_s, first[0].data_wait_s),
        image_s=image_s,
        wait_s=wait_s,
        validation_s=answer.validation_s,
        saving_s=answer.saving_s,
        checkpoint_bytes=sum(rank.bytes.checkpoint for rank in second),
        checkpoint_files=sum(len(rank.files) for rank in second),
        weights_bytes=answer.bytes.weights,
    )


def layouts_to_compare(spec: Spec) -> list[tuple[int, int]]:
    """Two ways to divide the same resources, as (ranks per gang, gangs): two gangs, or one gang of twice the ranks.

    Empty if Ray has too few resources for either, or if the batch size is not a multiple of the ranks.
    """
    ranks, batch_size = spec.training.ranks, spec.training.batch_size
    for half in (ranks, ranks // 2 if ranks % 2 == 0 else 0):
        if (
            half
            and batch_size % (2 * half) == 0
            and all(_fits(_with_ranks(spec, size), gangs) for size, gangs in ((half, 2), (2 * half, 1)))
        ):
            return [(half, 2), (2 * half, 1)]
    return []


def _with_ranks(spec: Spec, ranks: int) -> Spec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"ranks_per_trial": ranks})})


def _fits(spec: Spec, gangs: int) -> bool:
    """Whether Ray has the resources for so many gangs; it would wait without end for others."""
    available, bundles = ray.cluster_resources(), resources(spec).bundles
    return all(
        gangs * sum(bundle.get(name, 0.0) for bundle in bundles) <= available.get(name, 0.0)
        for name in {name for bundle in bundles for name in bundle}
    )
