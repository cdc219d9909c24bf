"""What was measured of a sweep's parts, on the resources that it will have (pure); see calibrate.py."""

from __future__ import annotations

from typing import Literal, TypeVar

from orchestrator.results.format import ResultFile, StrictModel

CALIBRATION = "calibration.json"


class StartSeconds(StrictModel):
    """What happens once, before anything is trained."""

    planning_s: float
    ray_s: float
    gang_s: float  # a gang's start


class AnchorSeconds(StrictModel):
    """The teachers' curves on the validation crops, rates estimated."""

    first_crop_s: float  # in workers that start
    crop_s: float  # each further one
    points: int  # of the anchor's curve


class FillSeconds(StrictModel):
    """A feature plan of the sweep, pixels or a teacher's."""

    title: str
    crop_s: float  # of one CPU, or of one GPU where Ray has any
    tap_bytes: dict[str, float]  # a crop


class TrainingCost(StrictModel):
    """A student's training, on a gang among as many as run side by side."""

    build_s: float  # model and engine, once a trial
    first_s: float  # what a trial's first steps take beyond those that follow
    first_wait_s: float  # of it, waiting for data
    image_s: float  # a crop, over all ranks of the gang
    wait_s: float  # of it, waiting for data
    validation_s: float  # a rung
    saving_s: float  # weights and checkpoint of a rung
    checkpoint_bytes: float  # of all ranks
    checkpoint_files: float
    weights_bytes: float


class CodingCost(StrictModel):
    """A network's real bitstreams."""

    code_s: float  # its preparation
    stream_s: float  # a bitstream: coded, decoded, checked


class StudentCost(StrictModel):
    """A student that was measured."""

    family: str
    macs_per_pixel: float
    distilled: bool
    training: TrainingCost
    coding: CodingCost


class CodingSeconds(StrictModel):
    """Real bitstreams, besides the students' own."""

    start_s: float  # a worker that starts
    anchor: CodingCost


class RegistrySeconds(StrictModel):
    """Registration in MLflow."""

    start_s: float  # the experiment and the model
    run_s: float  # a trial's run
    version_s: float  # a registered version


class GangLayout(StrictModel):
    """A way to use the same resources: gangs side by side."""

    ranks: int  # a gang
    gangs: int
    seconds: float  # for one image of the smallest and one of the largest student, over all gangs


class Calibration(ResultFile):
    """calibration.json, and what is kept of it in the user's cache folder."""

    format: Literal[1] = 1
    cpus: int
    gpus: int
    start: StartSeconds
    anchor: AnchorSeconds
    fill_start_s: float  # workers that start, and load the teachers
    fills: tuple[FillSeconds, ...]
    students: tuple[StudentCost, ...]  # the smallest and the largest of each family
    coding: CodingSeconds
    registry: RegistrySeconds
    layouts: tuple[GangLayout, ...]  # empty if the resources allow no comparison

    def student(self, family: str, macs_per_pixel: float, distilled: bool) -> StudentCost:
        """What a student costs, interpolated over the MACs between the measured ones of its family."""
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
    """Every field at a share of the way from one to the other."""
    return type(low)(
        **{name: (1 - share) * value + share * getattr(high, name) for name, value in low.model_dump().items()}
    )
