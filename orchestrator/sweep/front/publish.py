"""The end of a sweep: its trials and its front into MLflow, its report into the run folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.registry.registry import Registered, Registry
from orchestrator.results.front import CodedStudent
from orchestrator.spec.messages import SpecError
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder import records


def check_registry(run: Store) -> None:
    """Raises SpecError if there is no place for MLflow's database: SQLite needs a local folder."""
    if not run.url.startswith("file://") and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SpecError([f"results: {run.url} is not allowed: a local folder, or set MLFLOW_TRACKING_URI"])


def register(
    run: Store, trials: Sequence[records.Record], front: Sequence[CodedStudent], say: Callable[[str], None]
) -> list[Registered]:
    """Brings trials and front into MLflow; what is there already is left alone.

    Raises RegistryError: MLflow is away, for longer than its client tries by itself (minutes).
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = Path(run.url.removeprefix("file://"))
        if not run.url.startswith("file://"):
            folder = Path(elsewhere) / run.url.rpartition("/")[2]
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
