"""front.json and coded/*.json: trials with their curves, estimated and from real bitstreams (pure)."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue, field_serializer

from orchestrator.evaluation.metric import CurvePoint, Measured
from orchestrator.results.format import Number, OrNotMeasured, ResultFile, StrictModel
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Student

FRONT, CANDIDATES, CODED_ANCHOR = "front.json", "coded/candidates.json", "coded/anchor.json"


def coded_file(trial_id: str) -> str:
    """The name of a trial's CodedCurve inside the run folder."""
    return f"coded/{trial_id}.json"


class TrainedStudent(StrictModel):
    """A trial that has ended."""

    trial_id: str
    teacher: str | None  # None: a control
    student: Student
    loss: Loss
    complexity_class: str
    params: int
    macs_per_pixel: float
    encoder_macs_per_pixel: float
    decoder_macs_per_pixel: float
    encode_ms_per_megapixel: OrNotMeasured = None
    decode_ms_per_megapixel: OrNotMeasured = None
    images_seen: int
    status: Literal["stopped", "finished"]
    weights: str  # inside the run folder
    weights_digest: str  # SHA-256

    @field_serializer("loss")
    def _as_specified(self, loss: Loss) -> dict[str, JsonValue]:
        """What differs from the defaults, as in the trial's file."""
        return loss.model_dump(mode="json", exclude_defaults=True)


class Candidate(TrainedStudent):
    """With the estimated rates of its last rung."""

    bd_rate_pct: float
    points: tuple[CurvePoint, ...]


class CodedStudent(TrainedStudent):
    """With real bitstreams of the validation crops."""

    bd_rate_pct: float | None  # None: the curve is not valid, see the reason
    bd_rate_reason: str | None
    overlap: float | None  # share of the curve's range of quality that lies inside the anchor's
    interval_db: tuple[float, float] | None
    points: tuple[CurvePoint, ...]
    estimated_bd_rate_pct: float
    rate_gap_pct: float  # real bits over estimated ones, the largest of the rate points
    validation: tuple[Measured, ...]  # each crop's bitstreams; in coded/candidates.json empty
    entropy_id: str  # of the entropy model; students that have the same one read each other's streams
    version: str | None = None  # of the registered model; None: not registered


class Front(ResultFile):
    """front.json: the Pareto front, cheapest first."""

    format: Literal[2] = 2
    students: tuple[CodedStudent, ...]


class Candidates(ResultFile):
    """coded/candidates.json: all trials with real bitstreams."""

    format: Literal[2] = 2
    students: tuple[CodedStudent, ...]


class CodingKey(StrictModel):
    """What bitstreams were made from; with another key they are made again."""

    weights: str  # SHA-256
    rate_points: tuple[Number, ...]
    crops: tuple[tuple[str, int, int, int, int], ...]  # the photograph's digest, left, top, side, size


class CodedCurve(ResultFile):
    """coded/anchor.json and coded/TRIAL.json: one network's real bitstreams."""

    format: Literal[2] = 2
    key: CodingKey
    entropy_id: str
    points: tuple[CurvePoint, ...]
    validation: tuple[Measured, ...]
