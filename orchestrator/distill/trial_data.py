"""Where the crops and targets are that a trial reads, and that all trials of a sweep share. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.distill.targets import entropy_tap
from orchestrator.features.format.key import FeaturePlan, Tap
from orchestrator.features.read.channel_bits import Bits
from orchestrator.photographs.crops import Crop, CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Network, Refit
from orchestrator.spec.trial import Trial

StartKey = tuple[str, Network, Refit]  # the teacher, the student's network, and how it is refitted


def start_key(trial: Trial) -> StartKey | None:
    """What a trial's first weights are, if they are refitted; None: they are not."""
    if trial.init != "teacher-refit" or trial.start_of is None:
        return None
    network = Network(**{name: getattr(trial.student, name) for name in Network.model_fields})
    return trial.start_of, network, trial.loss.refit


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
        start: name in the store of the first weights, if they are refitted.
        validation: photographs and the boxes of them to validate on.
    """

    store_url: str
    plan: CropPlan
    pixels_plan: FeaturePlan
    feature_plan: FeaturePlan | None
    channel_bits: Bits | None = None
    start: str | None = None
    validation: tuple[tuple[Photograph, Crop], ...]


@dataclass(frozen=True, kw_only=True)
class SharedData:
    """What all trials of a sweep read; picklable.

    Attributes:
        store_url, plan, pixels_plan, validation: see `TrialData`.
        feature_plans: teacher -> its feature plan.
        channel_bits: (teacher, its tap) -> bits, where a loss asks for them.
        starts: name in the store of refitted first weights, see `start_key`.
        joined: pair of trials -> name in the store of first weights that are made of both.
    """

    store_url: str
    plan: CropPlan
    pixels_plan: FeaturePlan
    feature_plans: Mapping[str, FeaturePlan]
    channel_bits: Mapping[tuple[str, Tap], Bits]
    starts: Mapping[StartKey, str] = field(default_factory=dict)
    joined: Mapping[tuple[str, str], str] = field(default_factory=dict)
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
            start=self._start(trial),
            validation=self.validation,
        )

    def _start(self, trial: Trial) -> str | None:
        if trial.pair is not None:
            return self.joined[trial.pair]
        return self.starts[key] if (key := start_key(trial)) is not None else None

    def plan_with(self, digest: str) -> FeaturePlan:
        """The feature plan with this digest, the pixels' or a teacher's. Raises StopIteration if there is none."""
        plans = (self.pixels_plan, *self.feature_plans.values())
        return next(features for features in plans if features.digest == digest)
