"""The schedule of a distillation: which loss terms have which weight in which phase of a trial's training.

A schedule is written as the name of a published method (a preset), as weights alone, or as phases. The terms and their
units are in terms.py. The published weights cannot be taken over: their units differ between terms, and PRIM's
reconstruction term lacks the 255^2 that its rate-distortion term has. So a preset says which terms there are and when,
with weights of our own, each of which can be changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from models.families import Stage
from orchestrator.spec import allowed
from orchestrator.spec.section import Section, refusal
from orchestrator.spec.sections import Part, Refit, Start, Student
from orchestrator.spec.terms import TERMS, field_per_term

Weight = Annotated[float, Field(ge=0)]
OptionalWeight = Annotated[float | None, Field(ge=0)]
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
    "inherit",
    "inherit-slice",
    "inherit-plain",
    "inherit-frozen",
    "inherit-apart",
    "prim-l1-inherit",
    "feds-inherit",
]


# Any: these fields are made from the rows of terms.py when the module is loaded, and no type checker sees them.
_Weights: Any = field_per_term(Weight, 0.0, rate_distortion=(Weight, 1.0))
_OptionalWeights: Any = field_per_term(OptionalWeight, None, rate_distortion=(OptionalWeight, None))
_TeacherRatePoints: Any = field_per_term(TeacherRatePoint, None)


class LossWeights(_Weights, Section):
    """Weights: `rate_distortion`, by default 1, and one for each of `TERMS`, by default 0 (no distillation)."""

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
    # Modules apart: g_a learns the teacher's y, and g_s decodes the teacher's quantised y at the crop's rate point. The
    # rate is the teacher's, so rate_distortion weighs the distortion alone, and no entropy model takes part.
    apart: bool = False
    weights: LossWeights = LossWeights()
    learning_rate: Annotated[float, Field(gt=0)] = 1.0  # times the cosine of training.learning_rate over the trial
    freeze: tuple[Part, ...] = ()  # parts of the student that are not trained

    @property
    def frozen(self) -> frozenset[Part]:
        """Parts of the student that this phase does not train."""
        return frozenset((*self.freeze, *(("h_a", "h_s", "entropy") if self.apart else ())))

    @property
    def reads_teacher(self) -> bool:
        """Whether a step of this phase needs something of a teacher."""
        return self.apart or bool(self.weights.of_teacher)

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        for name, weight in self.weights.of_teacher.items():
            if self.apart and TERMS[name].reads not in ("y", "x_hat"):
                yield refusal(f"weights.{name}", weight, "0 in a phase apart, which has y and x_hat alone")


class TeacherRatePoints(_TeacherRatePoints, Section):
    """For each of `TERMS`, the rate point of the teacher that its target is of.

    `same` as the student's, or an index into the lambdas. null: `same`, but for the preset prim-hybrid, whose z is of
    the lowest rate point, and y and x_hat of the highest.
    """


class Method(Section):
    """The fields of a loss that are not weights."""

    preset: Preset | None = None
    phases: tuple[Phase, ...] = ()
    # the student's first weights, instead of students.init; null: the preset's, or students.init
    start: Start | None = None
    refit: Refit = Refit()  # how those of teacher-refit are made
    teacher_rate_point: TeacherRatePoints = TeacherRatePoints()
    # where the attention terms compare features
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("analysis-4", "analysis-8", "synthesis-8")
    # Where student and teacher differ in channels: a 1x1 map, trained with the student and then dropped; or, for y
    # alone, the teacher's channels that take most bits.
    widths: Literal["map", "top-entropy"] = "map"


class Loss(_OptionalWeights, Method):
    """A distillation method: a preset, with or without changed weights; phases; or weights alone, for one phase.

    The weights are `rate_distortion` and one for each of `TERMS`. null: the preset's; without a preset 1 for
    `rate_distortion` and 0 for all others. In a specification a preset without more may be written as its name, and a
    weight may be a range: loss_space.py.
    """

    @property
    def schedule(self) -> tuple[Phase, ...]:
        """The phases, one after the other; their shares sum to 1."""
        given = {name: value for name in LossWeights.model_fields if (value := getattr(self, name)) is not None}
        if self.preset is None:
            return self.phases or (Phase(weights=LossWeights(**given)),)
        phases = []
        for phase in PRESETS[self.preset].phases:
            present = {"rate_distortion", *phase.weights.of_teacher}
            changed = {name: value for name, value in given.items() if name in present}
            weights = phase.weights.model_copy(update=changed)
            phases.append(phase.model_copy(update={"weights": weights}))
        return tuple(phases)

    @property
    def terms(self) -> frozenset[str]:
        """The terms that read something of a teacher and have a weight in any phase."""
        return frozenset(name for phase in self.schedule for name in phase.weights.of_teacher)

    @property
    def apart(self) -> bool:
        """Whether modules are trained apart in any phase, which reads the teacher's quantised latent."""
        return any(phase.apart for phase in self.schedule)

    @property
    def is_control(self) -> bool:
        """Whether training reads nothing of a teacher, whatever the first weights are."""
        return not any(phase.reads_teacher for phase in self.schedule)

    def init_of(self, student: Student) -> str:
        """Where a student's first weights come from: one of `STARTS`, or a weights file."""
        return self.own_start or student.init

    @property
    def own_start(self) -> Start | None:
        """The start that the loss asks for, whatever the student's `init` is; None: it asks for none."""
        return self.start or (PRESETS[self.preset].start if self.preset else None)

    def rate_point(self, term: str, count: int) -> int | None:
        """Index of the teacher's rate point that a term's target is of, among `count`; None: the student's own."""
        given = getattr(self.teacher_rate_point, term)
        if given is None and self.preset == "prim-hybrid":
            return 0 if TERMS[term].reads == "z" else count - 1
        return None if given in (None, "same") else int(given)

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        given = [name for name in LossWeights.model_fields if getattr(self, name) is not None]
        if self.phases:
            if self.preset is not None or given:
                field = "preset" if self.preset is not None else given[0]
                yield refusal(field, getattr(self, field), "nothing beside phases, each of which has weights")
            for index, phase in enumerate(self.phases):
                yield from (f"phases.{index}.{problem}" for problem in phase.problems())
            total = sum(phase.share for phase in self.phases)
            if abs(total - 1) > 1e-6:
                yield refusal("phases", [phase.share for phase in self.phases], "shares that sum to 1")
        elif self.preset is not None:
            in_preset = [name for phase in PRESETS[self.preset].phases for name in phase.weights.of_teacher]
            present = {"rate_distortion", *in_preset}
            for name in given:
                if name not in present:
                    allowed_weights = f"a weight that {self.preset} has: {', '.join(sorted(present))}"
                    yield refusal(name, getattr(self, name), allowed_weights)
        if not any(phase.weights.rate_distortion and not phase.apart for phase in self.schedule) and not self.apart:
            yield refusal("rate_distortion", 0, "above 0 in at least one phase")

    @model_validator(mode="after")
    def _weighs_something(self) -> Loss:
        if self.preset is None and not self.phases and self.rate_distortion == 0 and self.is_control:
            raise ValueError("at least one weight above 0")
        return self


def phase_at(schedule: Sequence[Phase], share: float) -> Phase:
    """The phase of the step that begins when `share` of the trial's images have been seen."""
    end = 0.0
    for phase in schedule:
        end += phase.share
        if share < end - 1e-9:
            return phase
    return schedule[-1]


def _feds(alignment: LossWeights, channels: LossWeights, shares: tuple[float, float, float]) -> tuple[Phase, ...]:
    weights = (alignment, channels, LossWeights())
    return tuple(Phase(share=share, weights=of_phase) for share, of_phase in zip(shares, weights, strict=True))


# Chosen by a short run of each (4,000 images, N=32) on a validation set. There, differences below 3 points of BD-rate
# say little, but reconstruction at 0.3 cost 4 points and channel_attention at 1 cost 8.
_L1 = {"latent": 0.1, "reconstruction": 0.1}
_ATTENTION = {"spatial_attention": 0.1, "channel_attention": 0.1}
_CHANNELS = {"channel_entropy": 0.1}

# What won the search of jobs/specs/recipe.yaml, see docs/distillation.md: modules apart for the first half, in which
# g_s learns the teacher's reconstruction in place of the photograph. That has the same optimum, if the teacher decodes
# well, without the noise of all that no decoder can know.
_APART = Phase(share=0.5, apart=True, weights=LossWeights(rate_distortion=0, latent=0.3, reconstruction=1))
_INHERIT = (_APART, Phase(share=0.5))

# The losses and the schedule of FEDS (arXiv 2503.06399) are not public. These are its three stages in order, "FEDS as
# read" in docs/losses.md.


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a preset stands for."""

    phases: tuple[Phase, ...]
    start: Start | None = None  # None: the student's own


PRESETS: Mapping[Preset, Published] = {
    "none": Published(phases=(Phase(),)),
    "prim-l1": Published(phases=(Phase(weights=LossWeights(**_L1)),)),
    "prim-l2": Published(phases=(Phase(weights=LossWeights(**_L1, hyper_latent=0.01)),)),
    "prim-hybrid": Published(phases=(Phase(weights=LossWeights(**_L1, hyper_latent=0.01)),)),
    "feds": Published(phases=_feds(LossWeights(**_ATTENTION), LossWeights(**_CHANNELS), (0.3, 0.4, 0.3))),
    "feds-no-entropy": Published(phases=_feds(LossWeights(**_ATTENTION), LossWeights(latent=0.1), (0.3, 0.4, 0.3))),
    "feds-no-alignment": Published(phases=_feds(LossWeights(), LossWeights(**_CHANNELS), (0.3, 0.4, 0.3))),
    "feds-single-phase": Published(phases=(Phase(weights=LossWeights(**_ATTENTION, **_CHANNELS)),)),
    "inherit": Published(phases=_INHERIT, start="teacher-refit"),
    "inherit-slice": Published(phases=_INHERIT, start="teacher-slice"),
    "inherit-plain": Published(phases=(Phase(),), start="teacher-refit"),
    "inherit-frozen": Published(
        phases=tuple(phase.model_copy(update={"freeze": ("h_a", "h_s", "entropy")}) for phase in _INHERIT),
        start="teacher-refit",
    ),
    "inherit-apart": Published(phases=(_APART.model_copy(update={"share": 1.0}),), start="teacher-refit"),
    "prim-l1-inherit": Published(phases=(Phase(weights=LossWeights(**_L1)),), start="teacher-refit"),
    "feds-inherit": Published(
        phases=_feds(LossWeights(**_ATTENTION), LossWeights(**_CHANNELS), (0.3, 0.4, 0.3)), start="teacher-refit"
    ),
}
