"""Where the crops and targets are that a trial reads, and that all trials of a sweep share. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.distill.targets import entropy_tap
from orchestrator.features.format.key import FeaturePlan, Tap
from orchestrator.features.read.channel_bits import Bits
from orchestrator.photographs.crops import Crop, CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.trial import Trial


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """What one trial reads; picklable.

    Attributes:
        store_url: of the feature cache.
        plan: the sweep's crops.
        pixels_plan: where their pixels are.
        feature_plan: where the teacher's outputs for them are; None for a control.
        channel_bits: of the teacher's y at each rate point of the student, see `Distillation.bits`; None if the loss
            does not ask for them.
        validation: photographs and the boxes of them to validate on.
    """

    store_url: str
    plan: CropPlan
    pixels_plan: FeaturePlan
    feature_plan: FeaturePlan | None
    channel_bits: Bits | None = None
    validation: tuple[tuple[Photograph, Crop], ...]


@dataclass(frozen=True, kw_only=True)
class SharedData:
    """What all trials of a sweep read; picklable.

    Attributes:
        store_url, plan, pixels_plan, validation: see `TrialData`.
        feature_plans: teacher -> its feature plan.
        channel_bits: (teacher, its tap) -> bits, where a loss asks for them.
    """

    store_url: str
    plan: CropPlan
    pixels_plan: FeaturePlan
    feature_plans: Mapping[str, FeaturePlan]
    channel_bits: Mapping[tuple[str, Tap], Bits]
    validation: tuple[tuple[Photograph, Crop], ...]

    def of(self, trial: Trial) -> TrialData:
        """A trial's part, with the outputs of its own teacher only."""
        tap = entropy_tap(trial.loss, self.plan.rate_points)
        return TrialData(
            store_url=self.store_url,
            plan=self.plan,
            pixels_plan=self.pixels_plan,
            feature_plan=self.feature_plans[trial.teacher] if trial.teacher else None,
            channel_bits=self.channel_bits[trial.teacher, tap] if trial.teacher and tap else None,
            validation=self.validation,
        )

    def plan_with(self, digest: str) -> FeaturePlan:
        """The feature plan with this digest, the pixels' or a teacher's. Raises StopIteration if there is none."""
        plans = (self.pixels_plan, *self.feature_plans.values())
        return next(features for features in plans if features.digest == digest)
