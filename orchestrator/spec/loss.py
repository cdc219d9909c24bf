"""Which loss terms weigh how much when: the schedule of a distillation, by phases or by the name of a published method.

Units of the terms are in losses.py. All published weights were in units that differ between terms, and PRIM's
reconstruction term lacks the 255^2 beside a rate-distortion term that has it; so presets take over which terms there
are and when, with weights of our own, and every one of these is a field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from models.families import Stage
from orchestrator.spec import allowed
from orchestrator.spec.section import Section, refusal

Weight = Annotated[float | None, Field(ge=0)]
TeacherRatePoint = Annotated[Literal["same"] | int | None, PlainValidator(allowed.teacher_rate_point)]
Preset = Literal[
    "none",
    "prim-l1",
    "prim-l2",
    "prim-hybrid",
    "feds",
    "feds-no-entropy",
    "feds-no-alignment",
    "feds-single-phase",
]
Part = Literal["g_a", "h_a", "h_s", "g_s", "entropy"]  # of a network; entropy: all that is none of the others


class LossWeights(Section):
    """Weights of the terms. All but the first 0: no distillation."""

    rate_distortion: Annotated[float, Field(ge=0)] = 1.0
    latent: Annotated[float, Field(ge=0)] = 0.0  # PRIM: y
    latent_kl: Annotated[float, Field(ge=0)] = 0.0  # PRIM: y, by the divergence of its channels
    hyper_latent: Annotated[float, Field(ge=0)] = 0.0  # PRIM's L2: z
    reconstruction: Annotated[float, Field(ge=0)] = 0.0  # PRIM: x_hat
    spatial_attention: Annotated[float, Field(ge=0)] = 0.0  # FEDS: where features are strong
    channel_attention: Annotated[float, Field(ge=0)] = 0.0  # FEDS: which features are strong
    channel_entropy: Annotated[float, Field(ge=0)] = 0.0  # FEDS: y, channels weighted by their bits

    @property
    def of_teacher(self) -> dict[str, float]:
        """The terms that read something of a teacher and have a weight."""
        return {name: weight for name, weight in self if weight and name != "rate_distortion"}

    @model_validator(mode="after")
    def _weighs_something(self) -> LossWeights:
        if not self.rate_distortion and not self.of_teacher:
            raise ValueError("at least one weight above 0")
        return self


class Phase(Section):
    """A part of a trial's training."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the trial's images
    weights: LossWeights = LossWeights()
    learning_rate: Annotated[float, Field(gt=0)] = 1.0  # times the cosine of training.learning_rate over the trial
    freeze: tuple[Part, ...] = ()  # parts of the student that are not trained


class TeacherRatePoints(Section):
    """Of which rate point of the teacher a term's target is: `same` as the student's, or an index into the lambdas.

    null: `same`, but for the preset prim-hybrid, whose z is of the lowest rate point, y and x_hat of the highest.
    """

    latent: TeacherRatePoint = None
    latent_kl: TeacherRatePoint = None
    hyper_latent: TeacherRatePoint = None
    reconstruction: TeacherRatePoint = None
    spatial_attention: TeacherRatePoint = None
    channel_attention: TeacherRatePoint = None
    channel_entropy: TeacherRatePoint = None


class Method(Section):
    """What a loss has besides weights."""

    preset: Preset | None = None
    phases: tuple[Phase, ...] = ()
    teacher_rate_point: TeacherRatePoints = TeacherRatePoints()
    # whose features the attention terms compare
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("analysis-4", "analysis-8", "synthesis-8")
    # where student and teacher differ in channels: a 1x1 map, trained with the student and then dropped, or (of y) the
    # teacher's channels that take most bits
    widths: Literal["map", "top-entropy"] = "map"


class Loss(Method):
    """A distillation method: a preset, perhaps with some weights changed; phases; or weights alone, for one phase.

    In a specification a preset without more may be written as its name, and a weight may be a range: loss_space.py.
    """

    # null: the preset's weight, without one 1 for rate_distortion and 0 for all others
    rate_distortion: Weight = None
    latent: Weight = None
    latent_kl: Weight = None
    hyper_latent: Weight = None
    reconstruction: Weight = None
    spatial_attention: Weight = None
    channel_attention: Weight = None
    channel_entropy: Weight = None

    @property
    def schedule(self) -> tuple[Phase, ...]:
        """The phases, one after the other; their shares sum to 1."""
        given = {name: value for name in LossWeights.model_fields if (value := getattr(self, name)) is not None}
        if self.preset is None:
            return self.phases or (Phase(weights=LossWeights(**given)),)
        phases = []
        for phase in PRESETS[self.preset]:
            has = {"rate_distortion", *phase.weights.of_teacher}
            weights = phase.weights.model_copy(update={name: value for name, value in given.items() if name in has})
            phases.append(phase.model_copy(update={"weights": weights}))
        return tuple(phases)

    @property
    def terms(self) -> frozenset[str]:
        """All that read something of a teacher, in any phase."""
        return frozenset(name for phase in self.schedule for name in phase.weights.of_teacher)

    @property
    def is_control(self) -> bool:
        return not self.terms

    def rate_point(self, term: str, count: int) -> int | None:
        """Of the teacher, for a term; None: the student's own. `count`: how many rate points there are."""
        given = getattr(self.teacher_rate_point, term)
        if given is None and self.preset == "prim-hybrid":
            return 0 if term == "hyper_latent" else count - 1
        return None if given in (None, "same") else int(given)

    def faults(self) -> Iterator[str]:
        given = [name for name in LossWeights.model_fields if getattr(self, name) is not None]
        if self.phases:
            if self.preset is not None or given:
                field = "preset" if self.preset is not None else given[0]
                yield refusal(field, getattr(self, field), "nothing beside phases, each of which has weights")
            total = sum(phase.share for phase in self.phases)
            if abs(total - 1) > 1e-6:
                yield refusal("phases", [phase.share for phase in self.phases], "shares that sum to 1")
        elif self.preset is not None:
            has = {name for phase in PRESETS[self.preset] for name in ("rate_distortion", *phase.weights.of_teacher)}
            for name in given:
                if name not in has:
                    yield refusal(
                        name, getattr(self, name), f"a weight that {self.preset} has: {', '.join(sorted(has))}"
                    )
        if not any(phase.weights.rate_distortion for phase in self.schedule):
            yield refusal("rate_distortion", 0, "above 0 in at least one phase")

    @model_validator(mode="after")
    def _weighs_something(self) -> Loss:
        if self.preset is None and not self.phases and self.rate_distortion == 0 and self.is_control:
            raise ValueError("at least one weight above 0")
        return self


def phase_at(schedule: Sequence[Phase], share: float) -> Phase:
    """The phase of a step before which `share` of the trial's images were seen."""
    end = 0.0
    for phase in schedule:
        end += phase.share
        if share < end - 1e-9:
            return phase
    return schedule[-1]


def _feds(alignment: LossWeights, channels: LossWeights, shares: tuple[float, float, float]) -> tuple[Phase, ...]:
    weights = (alignment, channels, LossWeights())
    return tuple(Phase(share=share, weights=each) for share, each in zip(shares, weights, strict=True))


# By a short run of each (4,000 images, N=32) on a validation set; less than 3 points of BD-rate say little there, but
# reconstruction at 0.3 cost 4 points and channel_attention at 1 cost 8.
_L1 = {"latent": 0.1, "reconstruction": 0.1}
_ATTENTION = {"spatial_attention": 0.1, "channel_attention": 0.1}
_CHANNELS = {"channel_entropy": 0.1}

# FEDS (arXiv 2503.06399) is not public in its losses and schedule: these are `FEDS as read`, its three stages in order.
PRESETS: Mapping[Preset, tuple[Phase, ...]] = {
    "none": (Phase(),),
    "prim-l1": (Phase(weights=LossWeights(**_L1)),),
    "prim-l2": (Phase(weights=LossWeights(**_L1, hyper_latent=0.01)),),
    "prim-hybrid": (Phase(weights=LossWeights(**_L1, hyper_latent=0.01)),),
    "feds": _feds(LossWeights(**_ATTENTION), LossWeights(**_CHANNELS), (0.3, 0.4, 0.3)),
    "feds-no-entropy": _feds(LossWeights(**_ATTENTION), LossWeights(latent=0.1), (0.3, 0.4, 0.3)),
    "feds-no-alignment": _feds(LossWeights(), LossWeights(**_CHANNELS), (0.3, 0.4, 0.3)),
    "feds-single-phase": (Phase(weights=LossWeights(**_ATTENTION, **_CHANNELS)),),
}
