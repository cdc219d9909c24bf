"""The calibration: the measured costs of a sweep's parts, on the sweep's own resources (pure); see calibrate.py."""

from __future__ import annotations

from typing import Literal, TypeVar

from orchestrator.results.format import ResultFile, StrictModel

CALIBRATION = "calibration.json"


class StartSeconds(StrictModel):
    """What is done once, before training."""

    planning_s: float
    ray_s: float  # Ray's start
    gang_s: float  # a gang's start
    refit_s: float = 0.0  # a student's refitted first weights, of one CPU


class AnchorSeconds(StrictModel):
    """The teachers' curves on the validation crops, with estimated rates."""

    first_crop_s: float  # the first crop, start of the workers included
    crop_s: float  # each further crop
    points: int  # of the anchor's curve


class FillSeconds(StrictModel):
    """Filling the store with a feature plan, of pixels or of a teacher."""

    title: str  # of the feature plan
    crop_s: float  # per crop, of one CPU, or of one GPU where Ray has any
    tap_bytes: dict[str, float]  # tap -> bytes per crop


class TrainingCost(StrictModel):
    """A student's training on one gang, while the other gangs train, too."""

    build_s: float  # model and engine, once per trial
    first_s: float  # extra time of a trial's first steps
    first_wait_s: float  # the part of first_s that waits for data
    image_s: float  # per crop, over all ranks of the gang
    wait_s: float  # the part of image_s that waits for data
    validation_s: float  # per rung
    saving_s: float  # weights and checkpoint of a rung
    checkpoint_bytes: float  # per checkpoint, of all ranks
    checkpoint_files: float  # per checkpoint, of all ranks
    weights_bytes: float


class CodingCost(StrictModel):
    """Coding with a network and real bitstreams."""

    code_s: float  # once, to prepare the network
    stream_s: float  # per bitstream: coded, decoded, checked


class StudentCost(StrictModel):
    """The costs of a student."""

    family: str
    macs_per_pixel: float
    distilled: bool
    training: TrainingCost
    coding: CodingCost


class CodingSeconds(StrictModel):
    """Coding with real bitstreams, apart from the students' own costs."""

    start_s: float  # of a worker
    anchor: CodingCost


class RegistrySeconds(StrictModel):
    """Registration in MLflow."""

    start_s: float  # creates experiment and model
    run_s: float  # per trial
    version_s: float  # per registered version


class GangLayout(StrictModel):
    """A way to divide the same resources among gangs that train at the same time."""

    ranks: int  # per gang
    gangs: int
    seconds: float  # for one image of the smallest and one of the largest student, over all gangs


class Calibration(ResultFile):
    """calibration.json, also kept in the user's cache folder."""

    format: Literal[1] = 1
    cpus: int
    gpus: int
    start: StartSeconds
    anchor: AnchorSeconds
    fill_start_s: float  # workers start and load the teachers
    fills: tuple[FillSeconds, ...]
    students: tuple[StudentCost, ...]  # the smallest and the largest of each family
    coding: CodingSeconds
    registry: RegistrySeconds
    layouts: tuple[GangLayout, ...]  # empty if the resources allow no comparison

    def student(self, family: str, macs_per_pixel: float, distilled: bool) -> StudentCost:
        """The costs of a student, interpolated by MACs between the measured students of its family.

        Args:
            family: of the student.
            macs_per_pixel: of the student.
            distilled: whether it has a teacher.
        """
        of_family = [student for student in self.students if student.family == family]
        alike = [student for student in of_family if student.distilled == distilled] or of_family
        low = min(alike, key=lambda student: student.macs_per_pixel)
        high = max(alike, key=lambda student: student.macs_per_pixel)
        width = high.macs_per_pixel - low.macs_per_pixel
        share = (macs_per_pixel - low.macs_per_pixel) / width if width else 0.0
        return StudentCost(
            family=family,
            macs_per_pixel=macs_per_pixel,
            distilled=distilled,
            training=_between(low.training, high.training, share),
            coding=_between(low.coding, high.coding, share),
        )


Cost = TypeVar("Cost", TrainingCost, CodingCost)


def _between(low: Cost, high: Cost, share: float) -> Cost:
    """Linear interpolation of every field; `share` 0 is `low`, 1 is `high`."""
    return type(low)(
        **{name: (1 - share) * value + share * getattr(high, name) for name, value in low.model_dump().items()}
    )
