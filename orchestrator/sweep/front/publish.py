"""Registers a sweep's trials and front in MLflow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.registry.registry import Registered, Registry
from orchestrator.results.front import CodedStudent
from orchestrator.spec.messages import SpecError
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord


def check_registry(run: Store) -> None:
    """Raises SpecError if there is no place for MLflow's database, which in SQLite needs a local folder."""
    if run.folder is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SpecError([f"results: {run.url} is not allowed: a local folder, or set MLFLOW_TRACKING_URI"])


def register(
    run: Store, trials: Sequence[TrialRecord], front: Sequence[CodedStudent], say: Callable[[str], None]
) -> list[Registered]:
    """Register trials and front in MLflow; what is registered already stays unchanged.

    Args:
        run: the run folder, where the weights are.
        trials: all records.
        front: the students on it.
        say: takes a line of progress.

    Returns:
        A version for each student of the front.

    Raises:
        RegistryError: MLflow cannot be reached, after minutes of retries by its client.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = run.folder or Path(elsewhere) / run.url.rpartition("/")[2]
        if run.folder is None:
            for student in front:
                weights = folder / student.weights
                weights.parent.mkdir(parents=True, exist_ok=True)
                weights.write_bytes(run.read(student.weights))
        registry = Registry(folder)
        with registry.reached():
            registry.log_trials(trials)
            versions = registry.register_front(front)
    new = sum(version.new for version in versions)
    say(f"registry: {new} versions of {registry.model} registered, {len(versions) - new} reused")
    return versions
