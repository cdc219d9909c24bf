"""What is known of a trial: the content of trials/ID.json in the run folder (pure).

    running   it is training, or waits to continue; a trial of a sweep that was killed keeps this status
    paused    it waits at a rung for its promotion; its work is in its checkpoint
    saved     the sweep was preempted, and the trial's work is in its checkpoint
    stopped   ended early at a rung
    finished  ended at the last rung
    failed    it raised an exception; `error` says which
    lost      its processes died or gave no answer, which is no fault of the trial; `error` says how

The same command continues a trial that is running, saved, failed or lost. When a sweep ends, paused trials are stopped.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue, field_serializer, model_validator

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.format import OrNotMeasured, StrictModel, parse
from orchestrator.spec.loss import Loss
from orchestrator.spec.trial import Trial

FORMAT: Literal[4] = 4
Status = Literal["running", "paused", "saved", "stopped", "finished", "failed", "lost"]
Action = Literal["continue", "pause", "stop", "end"]
Measure = Literal["bd_rate_pct", "log_lagrangian_ratio"]


class Checkpoint(StrictModel):
    """A checkpoint in the run folder. No other process and no other moment has its path, so nothing overwrites it."""

    images_seen: int
    path: str  # inside the run folder
    files: dict[str, str]  # name -> SHA-256


class Decision(StrictModel):
    """What happens to a trial at a rung, and the comparison that decided it."""

    action: Action  # continue to the next rung, pause or stop before it, or end at the last rung
    rung: int  # images seen
    sequence: int  # of the sweep's decisions, from 0
    bracket: int
    measure: Measure
    invalid: int  # trials of the group without a valid BD-rate; above 0, the measure is the other one
    invalid_reason: str | None  # of the first of them
    place: int  # 1 is best
    places: int  # so many continue
    reported: int  # trials of the group at this rung so far


class SegmentBytes(StrictModel):
    """Bytes that a segment's ranks moved."""

    read: int  # out of the feature store
    checkpoint: int
    weights: int


class Rung(StrictModel):
    """What a trial measured when it reached a rung, and what the segment up to there took."""

    images_seen: int
    points: tuple[CurvePoint, ...]  # in the order of the lambdas, rates estimated
    bd_rate_pct: float | None  # None: the curve was not valid
    bd_rate_reason: str | None  # why it was not
    overlap: float | None
    interval_db: tuple[float, float] | None
    log_lagrangian_ratio: float
    anchor_digest: str
    losses: dict[str, float]  # the segment's mean terms
    training_s: float
    data_wait_s: float  # of `training_s`
    validation_s: float
    saving_s: float
    turnaround_s: float | None  # None: not the first rung on a warm gang
    startup_s: float
    build_s: float
    bytes: SegmentBytes
    ended_at: float  # seconds since the epoch, by the trial's clock
    mended: tuple[str, ...]  # damaged objects of the feature store that were made again
    hosts: tuple[str, ...]  # addresses of the ranks
    # None: not decided yet
    decision: Decision | None = Field(default=None, exclude_if=lambda decision: decision is None)


class TrialRecord(Trial):
    """A trial, how far it has come, and who may write its file."""

    format: Literal[4] = FORMAT
    owners: tuple[str, ...]  # tokens of the processes that have had the trial; only the last one writes, see records.py
    params: int
    macs_per_pixel: float
    encoder_macs_per_pixel: float
    decoder_macs_per_pixel: float
    encode_ms_per_megapixel: OrNotMeasured = None
    decode_ms_per_megapixel: OrNotMeasured = None
    status: Status = "running"
    error: str | None = None
    images_seen: int = 0  # how far the saved work reaches
    rungs: tuple[Rung, ...] = ()
    checkpoint: Checkpoint | None = None
    weights: str | None = None  # path inside the run folder
    weights_digest: str | None = None

    @model_validator(mode="after")
    def _error_of_a_failure(self) -> TrialRecord:
        if (self.error is not None) != self.broken:
            raise ValueError("an error for the status failed or lost, and for no other")
        return self

    @field_serializer("loss")
    def _as_specified(self, loss: Loss) -> dict[str, JsonValue]:
        """What differs from the defaults, as in a specification."""
        return loss.model_dump(mode="json", exclude_defaults=True)

    @property
    def owner(self) -> str:
        """The token of the process that may write the trial's file."""
        return self.owners[-1]

    @property
    def trial(self) -> Trial:
        """What is trained, without what is known of it."""
        return Trial(**{name: getattr(self, name) for name in Trial.model_fields})

    @property
    def ended(self) -> bool:
        """It is not trained again."""
        return self.status in ("stopped", "finished")

    @property
    def broken(self) -> bool:
        """It ended without a result; the same command tries it again."""
        return self.status in ("failed", "lost")

    def changed(self, **fields: Any) -> TrialRecord:
        """A copy with other values. Raises ValidationError."""
        return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | fields)

    def to_json(self) -> bytes:
        """The content of the trial's file."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> TrialRecord:
        """The record in a file; `name` is the file's, for messages. Raises FormatError."""
        return parse(data, cls, name)
