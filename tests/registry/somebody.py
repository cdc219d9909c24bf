"""A person who brings students into an MLflow, with little files for weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from lic_codec.bundle import CARD, ENTROPY
from orchestrator.registry import package
from orchestrator.registry.registered import Registered
from orchestrator.registry.registry import Registry
from orchestrator.results.bundles import bundle_file, packed
from orchestrator.results.front import CodedStudent
from orchestrator.store.store import Store
from testing.records import record, rung
from tests.results.builders import coded_student

SWEEP = "a" * 64


def bundle_of(folder: Path, weights: bytes) -> bytes:
    """A zipped bundle that names its files, and no more."""
    folder.mkdir(parents=True)
    (folder / CARD).write_text(json.dumps({"lambdas": [0.1, 0.2, 0.3, 0.4]}))
    (folder / ENTROPY).write_bytes(weights)
    return packed(folder)


class Somebody:
    """A person with a run folder of one name, who brings its students into an MLflow."""

    def __init__(self, folder: Path, uri: str | None, sweep: str = SWEEP) -> None:
        self.folder, self.run = folder, Store(folder / "quick")
        self.registry = Registry(self.run, sweep, uri)
        self.client = MlflowClient(self.registry.tracking_uri, self.registry.tracking_uri)

    def student(self, trial_id: str, weights: bytes) -> CodedStudent:
        digest = hashlib.sha256(weights).hexdigest()
        self.run.replace(f"weights/{digest}.safetensors", weights)
        if not self.run.exists(bundle_file(trial_id, digest)):
            made = bundle_of(self.folder / f"made-{trial_id}-{digest}", weights)
            self.run.replace(bundle_file(trial_id, digest), made)
        return coded_student(trial_id=trial_id, weights=f"weights/{digest}.safetensors", weights_digest=digest)

    def register(self, *students: CodedStudent, begun_by: str = "token") -> list[Registered]:
        rungs = [rung(512, -1.0)]
        records = [
            record(
                student.trial_id,
                rungs,
                status="finished",
                owners=(begun_by,),
                weights_digest=student.weights_digest,
            )
            for student in students
        ]
        return self.registry.register_front(students, self.registry.log_trials(records))

    def runs(self) -> list[Run]:
        """Those of trials."""
        experiment = self.client.get_experiment_by_name(self.registry.model)
        found = self.client.search_runs([experiment.experiment_id])
        return [run for run in found if run.data.tags.get("trial_id") != "sweep"]

    def weights_of(self, version: Registered, to: Path) -> bytes:
        """What MLflow gives to somebody who loads the version by its alias."""
        found = self.client.get_model_version_by_alias(version.model, version.alias)
        assert str(found.version) == version.version
        path = f"{found.source.removeprefix(f'runs:/{found.run_id}/')}/artifacts/{package.WEIGHTS}"
        return Path(self.client.download_artifacts(found.run_id, path, str(to))).read_bytes()
