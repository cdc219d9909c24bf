"""What a sweep is going to do: all that follows from its specification and the photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.weights import digest, read_metadata
from orchestrator.distill import targets
from orchestrator.distill.targets import entropy_tap
from orchestrator.distill.trial_data import SharedData
from orchestrator.features.format.key import FeaturePlan, Tap, TeacherWeights, plan_features
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.logs import warn
from orchestrator.photographs.crops import Crop, CropPlan, minimum_side, plan_crops, validation_crops
from orchestrator.photographs.photos import Photograph, survey
from orchestrator.spec.messages import SpecError
from orchestrator.spec.networks import check_networks, with_zoo_files, zoo_folder
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec, check_paths
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.space import reachable
from orchestrator.sweep.run_folder.inputs import inputs_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that follows from the specification and the photographs; made before anything is written."""

    spec: Spec
    trials: tuple[Trial, ...]  # not those of a search, but some that need all that its trials may: `space.reachable`
    train: tuple[Photograph, ...]
    crops: CropPlan
    validation: tuple[tuple[Photograph, Crop], ...]
    pixels: FeaturePlan
    features: dict[str, FeaturePlan]  # teacher -> its taps, for teachers that a trial may learn from
    inputs: dict[str, Any]

    @property
    def feature_plans(self) -> tuple[FeaturePlan, ...]:
        """The pixels', then the teachers'."""
        return self.pixels, *self.features.values()

    @classmethod
    def of(cls, spec: Spec) -> Plan:
        """Raises SpecError, WeightsError, PhotographError, CropError."""
        check_paths(spec)
        spec = with_zoo_files(spec, zoo_folder(spec))
        every = reachable(spec)
        check_networks(spec, every)
        unfit = spec.photographs.unfit
        held_out = survey(spec.photographs.validation, minimum_side=spec.validation.size, unfit=unfit)
        seen = {photograph.digest for photograph in held_out.photographs}
        train = survey(spec.photographs.train, minimum_side=minimum_side(spec.crops), unfit=unfit, exclude=seen)
        for finding in (*held_out.findings, *train.findings):
            warn(f"left out: {finding}")
        crops = plan_crops(train.photographs, spec.crops, len(spec.rate_ladder.lambdas), spec.seed)
        least = spec.training.batch_size * len(spec.rate_ladder.lambdas)
        if len(crops.crops) < least:  # of a given count the specification's own check has said it
            given = f"{len(train.photographs)} photographs give {len(crops.crops)}"
            instead = f"at least {least}, a batch for each lambda; {given}"
            raise SpecError([refusal("crops.count", spec.crops.count, instead)])
        used = {trial.teacher for trial in every}
        teachers = [
            TeacherWeights(
                name=teacher.name,
                path=teacher.weights,
                digest=digest(teacher.weights),
                kind=read_metadata(teacher.weights).kind,
                family=read_metadata(teacher.weights).family,
            )
            for teacher in spec.teachers
            if teacher.name in used
        ]
        return cls(
            spec=spec,
            trials=every,
            train=train.photographs,
            crops=crops,
            validation=validation_crops(held_out.photographs, spec.validation),
            pixels=plan_features(crops),
            features={
                teacher.name: plan_features(crops, teacher, taps(every, teacher, len(spec.rate_ladder.lambdas)))
                for teacher in teachers
            },
            inputs=inputs_of(spec, train.photographs, held_out.photographs),
        )


def taps(every: Sequence[Trial], teacher: TeacherWeights, rate_points: int) -> tuple[Tap, ...]:
    """What the losses of a teacher's trials read of it; nothing else is stored."""
    losses = [(trial.loss, trial.student.family) for trial in every if trial.teacher == teacher.name]
    return targets.taps(losses, teacher=teacher.family, rate_points=rate_points)


def shared_data(plan: Plan, store: Store) -> SharedData:
    """What all trials read of a store that is filled, with the channels' bits where a loss asks for them.

    Raises FeatureError, FileNotFoundError, as `channel_bits`.
    """
    rate_points = tuple(plan.crops.crops[shard[0]].rate_point for shard in plan.crops.shards)
    asked = {
        (trial.teacher, tap)
        for trial in plan.trials
        if trial.teacher and (tap := entropy_tap(trial.loss, plan.crops.rate_points))
    }
    return SharedData(
        store_url=store.url,
        plan=plan.crops,
        pixels_plan=plan.pixels,
        feature_plans=plan.features,
        channel_bits={
            (teacher, tap): channel_bits(store, plan.features[teacher], tap, rate_points)
            for teacher, tap in sorted(asked)
        },
        validation=plan.validation,
    )
