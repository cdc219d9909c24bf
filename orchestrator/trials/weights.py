"""Reads the trials' weights of a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from models.one_line import OneLineError
from orchestrator.results.front import TrainedStudent
from orchestrator.store.store import Store
from orchestrator.trials.files import trial_file
from orchestrator.trials.record import TrialRecord


class LostWeights(OneLineError, RuntimeError):
    """A trial's weights are gone or damaged; one line that says what to do."""


def read_weights(run: Store, student: TrainedStudent | TrialRecord) -> bytes:
    """The content of a student's weights file.

    Args:
        run: the run folder.
        student: of an ended trial.

    Raises:
        LostWeights: the file is gone, or is not the one that the trial recorded.
        StoreError: the run folder cannot be read.
    """
    try:
        data = run.read(str(student.weights))
    except FileNotFoundError:
        raise LostWeights(_line(run, student.trial_id, f"{student.weights} is gone")) from None
    if hashlib.sha256(data).hexdigest() != student.weights_digest:
        raise LostWeights(_line(run, student.trial_id, f"{student.weights} is damaged: not the recorded SHA-256"))
    return data


def lost_weights(run: Store, trials: Iterable[TrialRecord]) -> list[str]:
    """One line for each trial whose weights file is gone; what the files hold is checked when they are read."""
    there = set(run.list("weights"))
    return [
        _line(run, trial.trial_id, f"{trial.weights} is gone")
        for trial in trials
        if trial.weights is not None and trial.weights not in there
    ]


def _line(run: Store, trial_id: str, what: str) -> str:
    return f"{run.url}/{what}; without {trial_file(trial_id)} the same command trains this trial again"
