"""Chooses trials to code with real bitstreams, and makes the front from the results.

Early stopping uses estimated rates; the registered front uses real bitstreams. A stopped trial may be on the front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray

from orchestrator.evaluation.anchor import Anchor, Comparison
from orchestrator.evaluation.bd_rate import bd_rate
from orchestrator.evaluation.front import axes_of, pareto_front, spread
from orchestrator.evaluation.metric import CurvePoint, Metric
from orchestrator.features.fill.fill import answer_of
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import (
    CANDIDATES,
    CODED_ANCHOR,
    FRONT,
    Candidate,
    Candidates,
    CodedCurve,
    CodedStudent,
    CodingKey,
    Front,
    TrainedStudent,
    coded_file,
)
from orchestrator.spec.sections import Axis
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import code
from orchestrator.trials.record import TrialRecord
from orchestrator.trials.weights import read_weights

PUBLISHED_OVERLAP = 0.75  # least share of a curve inside the anchor's range for a BD-rate that is registered
AXIS: tuple[Axis, ...] = ("macs_per_pixel",)
Crops = Sequence[tuple[Photograph, Crop]]


class CodingJob(NamedTuple):
    """A network to code with."""

    file: str  # in the run folder, for the result
    digest: str  # SHA-256 of the weights
    weights: Callable[[], bytes]  # reads the weights file
    rate_points: Sequence[int | float]


def code_front(
    spec: Spec,
    crops: Crops,
    run: Store,
    anchor: Anchor,
    trials: Sequence[TrialRecord],
    say: Callable[[str], None],
) -> list[CodedStudent]:
    """Code the best trials with real bitstreams, and write candidates and front into the run folder. Ray must run.

    Args:
        spec: of the sweep.
        crops: of the validation photographs.
        run: the run folder.
        anchor: of the sweep.
        trials: all records.
        say: takes a line of progress.

    Returns:
        The front, cheapest first.

    Raises:
        FormatError: a file in coded/ is of another format.
        LostWeights: a network that is to be coded is gone or damaged.
    """
    candidates = estimated(trials)
    say(f"trials: {len(candidates)} of {len(trials)} have a valid BD-rate at their last rung")
    chosen = choose(candidates, spec.candidates, spec.axes)
    weights = next(teacher.weights for teacher in spec.teachers if teacher.name == anchor.teacher)
    coded, reused = code_all(chosen, run, anchor, Path(weights).read_bytes(), crops, say)
    if reused:
        say(f"coded: {reused} of {len(chosen) + 1} curves reused")
    without_crops = tuple(student.model_copy(update={"validation": ()}) for student in coded)
    write_file(run, CANDIDATES, Candidates(students=without_crops))
    front = front_of(coded, spec.axes)
    write_file(run, FRONT, Front(students=tuple(front)))
    for student in front:
        say(
            f"front: {student.trial_id}  {student.macs_per_pixel:8.0f} MACs/pixel  BD-rate {student.bd_rate_pct:+.2f} %"
        )
    return front


def choose(candidates: Sequence[Candidate], limit: int, axes: Sequence[Axis] = AXIS) -> list[Candidate]:
    """At most `limit` candidates: the Pareto front, then the front of the rest, and so on.

    If a front does not fit whole, students spread evenly over it are taken, with both its ends.

    Args:
        candidates: to choose from.
        limit: how many.
        axes: of the front, beside BD-rate.
    """
    rest = list(candidates)
    chosen: list[Candidate] = []
    while rest and len(chosen) < limit:
        front = pareto_front(rest, axes_of(axes))
        names = {candidate.trial_id for candidate in front}
        rest = [candidate for candidate in rest if candidate.trial_id not in names]
        chosen += spread(front, limit - len(chosen))
    return chosen


def estimated(trials: Iterable[TrialRecord]) -> list[Candidate]:
    """A candidate for every ended trial whose last rung has a valid BD-rate, with that rung's estimated rates."""
    return [
        Candidate(
            **{name: getattr(trial, name) for name in TrainedStudent.model_fields},
            bd_rate_pct=trial.rungs[-1].bd_rate_pct,
            points=trial.rungs[-1].points,
        )
        for trial in trials
        if trial.ended and trial.rungs[-1].bd_rate_pct is not None
    ]


def code_all(
    chosen: Sequence[Candidate], run: Store, anchor: Anchor, teacher: bytes, crops: Crops, say: Callable[[str], None]
) -> tuple[list[CodedStudent], int]:
    """Code the chosen trials and the anchor with real bitstreams, on the same crops; earlier results are reused.

    Args:
        chosen: from `estimated`.
        run: the run folder; results go to coded/.
        anchor: coded too, at its rate points.
        teacher: the content of the anchor's weights file.
        crops: of the validation photographs.
        say: takes a line of progress.

    Returns:
        The students with BD-rate and points from real bitstreams, and how many curves were reused.

    Raises:
        FormatError: a file in coded/ is of another format.
        LostWeights: a network that is to be coded is gone or damaged.
    """
    jobs = _jobs(chosen, run, anchor, teacher)
    boxes = tuple((photograph.digest, crop.left, crop.top, crop.side, crop.size) for photograph, crop in crops)
    curves: dict[str, CodedCurve] = {}
    pending: dict[Any, tuple[str, CodingKey]] = {}  # Ray's reference -> file and key
    for job in jobs:
        key = CodingKey(weights=job.digest, rate_points=tuple(job.rate_points), crops=boxes)
        stored = read_file(run, job.file, CodedCurve)
        if stored is not None and stored.key == key:
            curves[job.file] = stored
        else:
            pending[code.remote(job.weights(), crops, job.rate_points)] = (job.file, key)
    reused = len(curves)
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        file, key = pending.pop(ready)
        entropy_id, points, measured = answer_of(ready)
        curves[file] = CodedCurve(key=key, entropy_id=entropy_id, points=tuple(points), validation=tuple(measured))
        write_file(run, file, curves[file])
        say(f"coded with real bitstreams: {file.removeprefix('coded/').removesuffix('.json')}")
    anchor_points = curves[CODED_ANCHOR].points
    coded = [_scored(student, curves[coded_file(student.trial_id)], anchor_points, anchor.metric) for student in chosen]
    return coded, reused


def front_of(coded: Sequence[CodedStudent], axes: Sequence[Axis] = AXIS) -> list[CodedStudent]:
    """The Pareto front of the coded students with a valid BD-rate, cheapest first.

    Args:
        coded: the students.
        axes: of the front, beside BD-rate.
    """
    return pareto_front([student for student in coded if student.bd_rate_pct is not None], axes_of(axes))


def _jobs(chosen: Sequence[Candidate], run: Store, anchor: Anchor, teacher: bytes) -> list[CodingJob]:
    """One job per network; the anchor first, since it takes longest."""
    rate_points, files = list(range(len(anchor.lambdas))), [coded_file(student.trial_id) for student in chosen]
    return [
        CodingJob(CODED_ANCHOR, anchor.weights, lambda: teacher, anchor.rate_points),
        *(
            CodingJob(file, student.weights_digest, partial(read_weights, run, student), rate_points)
            for file, student in zip(files, chosen, strict=True)
        ),
    ]


def _scored(student: Candidate, coded: CodedCurve, anchor: Sequence[CurvePoint], metric: Metric) -> CodedStudent:
    """A student with its BD-rate from real bitstreams, and how far its estimated rates were off."""
    result = bd_rate(metric.curve(anchor), metric.curve(coded.points), minimum_overlap=PUBLISHED_OVERLAP)
    pairs = zip(coded.points, student.points, strict=True)
    gaps = [100 * (real.bpp / estimate.bpp - 1) for real, estimate in pairs]
    trained = {name: getattr(student, name) for name in TrainedStudent.model_fields}
    return CodedStudent(
        **trained,
        **asdict(Comparison.of(result)),
        estimated_bd_rate_pct=student.bd_rate_pct,
        rate_gap_pct=max(gaps, key=abs),
        points=coded.points,
        validation=coded.validation,
        entropy_id=coded.entropy_id,
    )
