"""One rank's share of a trial: student, reader, loop and validation. Knows nothing of Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from models.ladder import RateLadder
from models.weights import assign, load_ladder, read_metadata, read_tensors, save_ladder, slice_from
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.ladders import ladder_of
from orchestrator.distill.loop import Loop, cosine
from orchestrator.distill.refit.stored import load_start
from orchestrator.distill.trial_data import TrialData
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.features.format.key import Tap
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.reader import Reader as FeatureReader
from orchestrator.features.read.reader import workers_for
from orchestrator.photographs.tensors import cut_tensor
from orchestrator.spec.loss import phase_at
from orchestrator.spec.sections import Inherited
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store


def first_ladder(spec: Spec, trial: Trial, data: TrialData) -> RateLadder:
    """The student with its first weights: the same for every rank, and for a distilled trial and its control.

    Raises:
        WeightsError, FeatureError, StoreError: the weights that they are made of cannot be read.
    """
    torch.manual_seed(trial.seed)
    ladder = ladder_of(trial.student, spec.rate_ladder)
    teacher = load_ladder(spec.weights_of(trial.start_of)) if trial.start_of else None
    if data.start is not None:
        load_start(Store(data.store_url), data.start, ladder)
    elif trial.init == "teacher-slice" and teacher is not None:
        slice_from(ladder, teacher)
    elif trial.init != "random":
        assign(ladder, read_tensors(trial.init), source=trial.init)
    if teacher is not None:
        inherit(ladder, teacher, trial.inherits)
    if spec.training.compile == "transforms":
        ladder.compile_transforms()
    return ladder


def inherit(ladder: RateLadder, teacher: RateLadder, parts: Collection[Inherited]) -> None:
    """Gives a student parts of its teacher, which has them in the same form.

    Args:
        parts: g_a, g_s; entropy: all that is in neither of them.
    """
    own = dict(ladder.named_parameters())
    for name, parameter in teacher.named_parameters():
        transform = next((part for part in ("g_a", "g_s") if f".{part}." in name), "entropy")
        if transform in parts:
            own[name].data.copy_(parameter.data)


def open_reader(
    spec: Spec, trial: Trial, data: TrialData, taps_at: Callable[[int], Collection[Tap]], rank: int, world: int
) -> FeatureReader:
    """A rank's reader: on GPUs batches are as they are stored, and several threads read them.

    Args:
        spec: of the sweep.
        trial: whose seed orders the crops.
        data: where they are.
        taps_at: see `FeatureReader`.
        rank, world: this rank's place among those that share the trial.
    """
    section, on_gpu = spec.node_cache, spec.training.gpus > 0
    return FeatureReader(
        data.store_url,
        data.plan,
        tuple(plan for plan in (data.pixels_plan, data.feature_plan) if plan is not None),
        rank=rank,
        world=world,
        batch_size=spec.training.batch_size,
        seed=trial.seed,
        taps_at=taps_at,
        cache=NodeCache(section.folder, int(section.gigabytes * 1e9), decoded=section.decoded),
        as_stored=on_gpu,
        workers=workers_for(len(os.sched_getaffinity(0)), on_gpu),
    )


class TrialRun:
    """One rank's share of one trial, in a process group that this process has joined.

    Args:
        spec: of the sweep.
        trial: student, loss weights, seed.
        data: where its crops are.
        rank, world: this rank's place among those that share the trial.
    """

    def __init__(self, spec: Spec, trial: Trial, data: TrialData, rank: int, world: int) -> None:
        self._rank, self._world = rank, world
        first = first_ladder(spec, trial, data)
        total, batch_size = spec.early_stopping.rungs[-1], spec.training.batch_size
        described = read_metadata(spec.weights_of(trial.teacher)) if trial.teacher else None
        distillation = (
            Distillation(loss=trial.loss, images=total, frozen=trial.student.frozen)
            if described is None
            else Distillation.of(trial.loss, first, described, total, data.channel_bits, trial.student.frozen)
        )

        schedule = trial.loss.schedule

        def taps_at(step: int) -> set[Tap]:
            return distillation.read(phase_at(schedule, step * batch_size / total))

        self._reader = open_reader(spec, trial, data, taps_at, rank, world)
        self._loop = Loop(
            ladder=first,
            training=spec.training,
            reader=self._reader,
            learning_rate=cosine(spec.training.learning_rate, total, spec.training.warmup_images),
            distillation=distillation,
            world=world,
            seed=trial.seed,
        )
        if spec.training.gpus > 0:  # on CPUs the thread would take the time from the one that trains
            self._reader.noise = self._loop.noise_ahead
        self._validation = [cut_tensor(photograph, crop) for photograph, crop in data.validation]

    def advance_to(self, images: int) -> None:
        """See `Loop.advance_to`."""
        self._loop.advance_to(images)

    def take_terms(self) -> dict[str, float]:
        """See `Loop.take_terms`; every rank calls it."""
        return self._loop.take_terms()

    def validate(self) -> list[CurvePoint]:
        """See `Loop.validate`; every rank calls it."""
        return self._loop.validate(self._validation, rank=self._rank, world=self._world)

    def save(self, folder: Path) -> None:
        """Writes this rank's part of a checkpoint into an empty folder; every rank calls it."""
        self._loop.save(folder)

    def load(self, folder: Path) -> None:
        """Continues from a checkpoint; every rank calls it, with all parts in its folder."""
        self._loop.load(folder)

    def export(self, path: Path) -> None:
        """Writes the student's weights; every rank calls it, rank 0 writes."""
        with self._loop.weights() as ladder:
            if self._rank == 0:
                save_ladder(path, ladder)

    def reading(self) -> tuple[float, int]:
        """Seconds that training has waited for batches, and bytes that this rank has read out of the store, so far."""
        return self._reader.waited_s, self._reader.read_bytes

    def close(self) -> None:
        """Frees memory and the reader's thread."""
        self._reader.close()
        self._loop.close()
