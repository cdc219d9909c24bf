"""Measures teachers, complexities and bitstreams in Ray tasks, so that the driver does not import torch."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import ray

from models.one_line import one_line
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.complexity import complexity, complexity_of
from orchestrator.evaluation.costs import Complexity
from orchestrator.evaluation.metric import METRICS, CurvePoint, Measured
from orchestrator.photographs.crops import Crop, cut
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.spec.sections import Axis, MeasuredAxis, RateLadderSection, Student

if TYPE_CHECKING:
    import numpy as np

    from models.ladder import RateLadder

POINTS_BELOW = 2  # below the lowest rate point: an undertrained student's low rates reach there
POINTS_PER_INTERVAL = 2  # between two rate points, the lower one included


class TeacherCurve(NamedTuple):
    """A teacher's curve."""

    anchor: Anchor
    cost: float  # mean over lambdas of ln(bpp + lambda * distortion): the best teacher has the lowest
    seconds: float  # that it took
    complexity: Complexity


@ray.remote(num_cpus=1)
def measure_teacher(
    name: str,
    weights: str,
    crops: Sequence[tuple[Photograph, Crop]],
    rates: RateLadderSection,
    axes: Sequence[Axis] = (),
) -> TeacherCurve:
    """A teacher's curve on the validation crops, with estimated rates: a candidate for the anchor.

    Args:
        name, weights: of the teacher.
        crops: of the validation photographs.
        rates: the specification's rate ladder; teachers are compared at its lambdas.
        axes: as of `measure_complexity`.
    """
    began = time.monotonic()
    import torch

    from models.weights import digest, load_ladder
    from orchestrator.evaluation.rate_distortion import curve, estimate

    torch.set_num_threads(1)
    ladder, metric, lambdas = load_ladder(weights), METRICS[rates.distortion], rates.lambdas
    wanted = [rate_point_of(ladder, lmbda) for lmbda in lambdas]
    sampled = sampled_rate_points(ladder)
    measured = curve(estimate(ladder, pictures(crops), list(dict.fromkeys([*sampled, *wanted]))))
    points = {point.rate_point: point for point in measured}
    at_lambdas = tuple(metric.cost(points[rate_point]) for rate_point in wanted)
    costs = [bpp + lmbda * distortion for lmbda, (bpp, distortion) in zip(lambdas, at_lambdas, strict=True)]
    anchor = Anchor(
        teacher=name,
        weights=digest(weights),
        rate_points=tuple(sampled),
        curve=tuple(metric.pair(points[point]) for point in sampled),
        lambdas=lambdas,
        at_lambdas=at_lambdas,
        distortion=rates.distortion,
    )
    mean_cost = math.fsum(map(math.log, costs)) / len(costs)
    own = complexity_of(ladder, timed=_timed(axes))
    return TeacherCurve(anchor=anchor, cost=mean_cost, seconds=time.monotonic() - began, complexity=own)


@ray.remote(num_cpus=1)
def measure_complexity(
    students: Mapping[str, Student], ladder: RateLadderSection, axes: Sequence[Axis] = ()
) -> dict[str, Complexity]:
    """The complexity of each class.

    Args:
        students: complexity class -> a student of it.
        ladder: the specification's rate ladder.
        axes: of the front; with a measured one among them, networks are timed here.
    """
    lambdas, kind, timed = ladder.lambdas, ladder.kind, _timed(axes)
    return {
        name: complexity(
            family=student.family,
            N=student.N,
            M=student.M,
            Z=student.Z,
            encoder_N=student.encoder_N,
            lambdas=lambdas,
            kind=kind,
            timed=timed,
        )
        for name, student in students.items()
    }


def _timed(axes: Sequence[Axis]) -> bool:
    return not set(axes).isdisjoint(get_args(MeasuredAxis))


@ray.remote(num_cpus=1)
def code(
    weights: bytes, crops: Sequence[tuple[Photograph, Crop]], rate_points: Sequence[int | float]
) -> tuple[str, list[CurvePoint], list[Measured]]:
    """Code crops with real bitstreams of a ladder, and decode them again.

    Args:
        weights: the content of the ladder's file.
        crops: of the validation photographs.
        rate_points: indices into the ladder; floats are gains.

    Returns:
        The entropy model's id; the curve, as `rate_distortion.curve` gives it; and the measurement at each crop and
        rate point.

    Raises:
        MismatchError: a decoded image differs from the encoder's forward pass.
    """
    import torch

    from models.bitstream import prepare_for_coding
    from models.weights import ladder_from
    from orchestrator.evaluation.rate_distortion import coded, curve

    torch.set_num_threads(1)
    coding = prepare_for_coding(ladder_from(weights))
    measured = list(coded(coding, pictures(crops), rate_points))
    return coding.entropy_id, curve(measured), measured


def pictures(crops: Sequence[tuple[Photograph, Crop]]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Names and pixels, uint8 [size, size, 3]; a name is the file's, plus the position of a crop that is a part."""
    named = []
    for photograph, crop in crops:
        whole = photograph.width == photograph.height == crop.side
        position = "" if whole else f"+{crop.left}+{crop.top}"
        named.append((one_line(Path(photograph.path).name) + position, cut(load_rgb(photograph), crop)))
    return named


def rate_point_of(ladder: RateLadder, lmbda: float) -> int | float:
    """The rate point for a lambda: an index into the ladder, or a gain between them, proportional to lambda^1/2.

    Raises:
        ValueError: the ladder has no rate point at this lambda.
    """
    for index, own in enumerate(ladder.lambdas):
        if math.isclose(own, lmbda, rel_tol=1e-6):
            return index
    if ladder.kind != "variable-rate" or lmbda > ladder.lambdas[-1]:
        raise ValueError(f"a teacher with the lambdas {list(ladder.lambdas)} has no rate point at lambda {lmbda}")
    return math.sqrt(lmbda / ladder.lambdas[-1])


def sampled_rate_points(ladder: RateLadder) -> list[int | float]:
    """The rate points at which the anchor's curve is sampled, lowest rate first: the ladder's, gains between them, and
    two gains below the lowest.

    A BD-rate interpolates the anchor, which must cover a student's curve: so the anchor is sampled wider and more
    densely than the students' ladders. A ladder of one network per lambda has only its own rate points.
    """
    if ladder.kind != "variable-rate":
        return list(range(len(ladder.lambdas)))
    gains = ladder.gains
    step = math.sqrt(gains[1] / gains[0])
    points: list[int | float] = [gains[0] / step ** (2 * below) for below in range(POINTS_BELOW, 0, -1)]
    for index, (low, high) in enumerate(itertools.pairwise(gains)):
        points += [
            index,
            *(low * (high / low) ** (part / POINTS_PER_INTERVAL) for part in range(1, POINTS_PER_INTERVAL)),
        ]
    return [*points, len(gains) - 1]
