"""Trials' records for tests: valid ones, of which a test says what matters to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Student
from orchestrator.store.store import Store
from orchestrator.trials.files import trial_file
from orchestrator.trials.record import Rung, SegmentBytes, TrialRecord

STUDENT = Student(family="hyperprior", N=8, M=16)


def rung(images_seen: int, bd_rate_pct: float | None = None, **fields: Any) -> Rung:
    """A rung that took no time, not yet decided."""
    times = ("training_s", "data_wait_s", "validation_s", "saving_s", "startup_s", "build_s")
    given: dict[str, Any] = {
        "images_seen": images_seen,
        "points": (),
        "bd_rate_pct": bd_rate_pct,
        "bd_rate_reason": None if bd_rate_pct is not None else "quality-not-rising: test",
        "overlap": None,
        "interval_db": None,
        "log_lagrangian_ratio": 0.0,
        "anchor_digest": "0" * 64,
        "losses": {},
        **dict.fromkeys(times, 0.0),
        "turnaround_s": None,
        "bytes": SegmentBytes(read=0, checkpoint=0, weights=0),
        "ended_at": 0.0,
        "mended": (),
        "hosts": (),
    }
    return Rung(**(given | fields))


def record(trial_id: str, rungs: Sequence[Rung] = (), **fields: Any) -> TrialRecord:
    """A running trial of the process `token`, a control, that has reached these rungs."""
    given: dict[str, Any] = {
        "trial_id": trial_id,
        "student": STUDENT,
        "teacher": None,
        "loss": Loss(),
        "seed": 0,
        "owners": ("token",),
        "params": 10,
        "macs_per_pixel": 2.0,
        "encoder_macs_per_pixel": 1.0,
        "decoder_macs_per_pixel": 1.0,
        "images_seen": rungs[-1].images_seen if rungs else 0,
        "rungs": tuple(rungs),
    }
    return TrialRecord(**(given | fields))


def write(run: Store, written: TrialRecord) -> None:
    """Puts a trial's file into a run folder, whoever owns it."""
    run.replace(trial_file(written.trial_id), written.to_json())
