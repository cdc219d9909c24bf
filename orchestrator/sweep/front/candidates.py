"""Which trials are coded with real bitstreams, and the front that comes out of it.

Estimated rates stop trials; real bitstreams register them. A trial that was stopped may be on the front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import ray

from orchestrator.evaluation.anchor import Anchor, Comparison
from orchestrator.evaluation.bd_rate import bd_rate
from orchestrator.evaluation.front import pareto_front
from orchestrator.evaluation.metric import CurvePoint, Metric
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import (
    CODED_ANCHOR,
    Candidate,
    CodedCurve,
    CodedStudent,
    CodingKey,
    TrainedStudent,
)
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import code
from orchestrator.trials.record import TrialRecord

PUBLISHED_OVERLAP = 0.75  # share of a curve that must lie inside the anchor's for a figure that is registered
Crops = Sequence[tuple[Photograph, Crop]]


class Job(NamedTuple):
    """One network to code with."""

    file: str  # of the run folder, for the result
    digest: str  # of the weights
    weights: Callable[[], bytes]
    rate_points: Sequence[int | float]


def choose(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """At most `limit` candidates: their Pareto front, then the front of the rest, and so on.

    Of a front that does not fit whole, students evenly spread over the complexity are taken, both its ends first.
    """
    rest = list(candidates)
    chosen: list[Candidate] = []
    while rest and len(chosen) < limit:
        front = pareto_front(rest)
        names = {candidate.trial_id for candidate in front}
        rest = [candidate for candidate in rest if candidate.trial_id not in names]
        room = limit - len(chosen)
        if len(front) > room:
            places = [round(place * (len(front) - 1) / max(1, room - 1)) for place in range(room)]
            front = [front[place] for place in places]
        chosen += front
    return chosen


def estimated(trials: Iterable[TrialRecord]) -> list[Candidate]:
    """A candidate for every ended trial whose last curve is valid, with the estimated rates of its last rung."""
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
    """Real bitstreams of the chosen trials and of the anchor, on the same crops; what was coded before is read back.

    Args:
        chosen: of `estimated`.
        run: the run folder; results go to coded/.
        anchor: its gains are coded too, with `teacher`, the bytes of its weights file.
        crops: of the validation photographs.
        say: takes a line of progress.

    Returns:
        The students with BD-rate and points from real bitstreams, and how many curves were reused.

    Raises:
        FormatError: a file in coded/ is of another format.
    """
    jobs = _jobs(chosen, run, anchor, teacher)
    boxes = tuple((photograph.digest, crop.left, crop.top, crop.side, crop.size) for photograph, crop in crops)
    curves: dict[str, CodedCurve] = {}
    waiting: dict[Any, tuple[str, CodingKey]] = {}  # Ray's reference -> file and key
    for job in jobs:
        key = CodingKey(weights=job.digest, rate_points=tuple(job.rate_points), crops=boxes)
        before = read_file(run, job.file, CodedCurve)
        if before is not None and before.key == key:
            curves[job.file] = before
        else:
            waiting[code.remote(job.weights(), crops, job.rate_points)] = (job.file, key)
    reused = len(curves)
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        file, key = waiting.pop(ready)
        points, measured = ray.get(ready)
        curves[file] = CodedCurve(key=key, points=tuple(points), validation=tuple(measured))
        write_file(run, file, curves[file])
        say(f"coded with real bitstreams: {file.removeprefix('coded/').removesuffix('.json')}")
    against = curves[CODED_ANCHOR].points
    coded = [_scored(student, curves[_file(student)], against, anchor.metric) for student in chosen]
    return coded, reused


def front_of(coded: Sequence[CodedStudent]) -> list[CodedStudent]:
    """The Pareto front of the coded students, cheapest first; one whose coded curve is not valid cannot be on it."""
    return pareto_front([student for student in coded if student.bd_rate_pct is not None])


def _jobs(chosen: Sequence[Candidate], run: Store, anchor: Anchor, teacher: bytes) -> list[Job]:
    """The anchor first: it takes longest."""
    rate_points = list(range(len(anchor.lambdas)))
    return [
        Job(CODED_ANCHOR, anchor.weights, lambda: teacher, anchor.rate_points),
        *(
            Job(_file(student), student.weights_digest, partial(run.read, student.weights), rate_points)
            for student in chosen
        ),
    ]


def _file(student: Candidate) -> str:
    return f"coded/{student.trial_id}.json"


def _scored(student: Candidate, coded: CodedCurve, anchor: Sequence[CurvePoint], metric: Metric) -> CodedStudent:
    result = bd_rate(metric.curve(anchor), metric.curve(coded.points), minimum_overlap=PUBLISHED_OVERLAP)
    pairs = zip(coded.points, student.points, strict=True)
    gaps = [100 * (real.bpp / estimate.bpp - 1) for real, estimate in pairs]
    known = {name: getattr(student, name) for name in TrainedStudent.model_fields}
    return CodedStudent(
        **known,
        **asdict(Comparison.of(result)),
        estimated_bd_rate_pct=student.bd_rate_pct,
        rate_gap_pct=max(gaps, key=abs),
        points=coded.points,
        validation=coded.validation,
    )
