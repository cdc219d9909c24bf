"""Reads the trials' files of a run folder."""

from __future__ import annotations

from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord


def trial_file(trial_id: str) -> str:
    """Its name inside the run folder."""
    return f"trials/{trial_id}.json"


def read_trial(run: Store, trial_id: str) -> TrialRecord | None:
    """The trial's record; None if it was not begun. Raises FormatError, StoreError."""
    try:
        return _read(run, trial_file(trial_id))
    except FileNotFoundError:
        return None


def read_trials(run: Store) -> list[TrialRecord]:
    """All trials that were begun, in the order of their ids.

    Raises:
        FormatError: a file has another format.
        StoreError: the store cannot be used.
    """
    return [record for _, record in in_threads(lambda name: _read(run, name), _names(run))]


def check_format(run: Store) -> None:
    """Raises FormatError if the trials' files are of another format; reads one of them."""
    for name in _names(run)[:1]:
        _read(run, name)


def _names(run: Store) -> list[str]:
    return [name for name in run.list("trials") if name.endswith(".json")]


def _read(run: Store, name: str) -> TrialRecord:
    return TrialRecord.from_json(run.read(name), f"{run.url}/{name}")
