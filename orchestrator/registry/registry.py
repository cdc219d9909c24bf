"""Writes to MLflow: a run per trial, and the front's students as versions of a registered model.

A sweep's experiment and its registered model are called `lic-distillery-<name>-<id>`, and its id comes from its inputs.
Each student of its front is a version, with the trial's id and the weights' digest as alias:
`models:/lic-distillery-quickstart-1f0c9e27a5b4@03-hyperprior-n16-9b2ce8f0c1d3`. What another sweep has written is never
written to. Results are files first: all that is logged here comes from the run folder, and can be logged again from it,
here or in another MLflow. One process, the sweep's driver, writes; nothing here imports torch.

Everything goes to MLFLOW_TRACKING_URI where it is set, else to a SQLite file in the run folder with the artifacts
beside it.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.registry import package, trial_log
from orchestrator.registry.names import alias, artifact_folder, best_of, model_name
from orchestrator.registry.reach import (
    EXISTS,
    GONE,
    VARIABLE,
    RegistryError,
    Unless,
    database_url,
    little_patience,
    reached,
)
from orchestrator.results.front import CodedStudent
from orchestrator.results.mlflow_runs import MlflowRuns
from orchestrator.spec.messages import without_credentials
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord
from orchestrator.trials.weights import read_weights

if TYPE_CHECKING:
    from mlflow.entities import FileInfo, Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of the registered model."""

    trial_id: str
    model: str
    version: str
    alias: str
    new: bool  # False: it existed already, with this trial's id and these weights

    @property
    def uri(self) -> str:
        """What MLflow loads the version by; the same in every registry that has the sweep."""
        return f"models:/{self.model}@{self.alias}"


class Registry:
    """Brings a run folder into MLflow.

    Args:
        run: the run folder; its name is the sweep's.
        sweep: the sweep's id.
        tracking_uri: of MLflow; by default MLFLOW_TRACKING_URI, else SQLite in the run folder, which must be local.

    Raises:
        RegistryError: from here and from every method, whatever MLflow, its database or its storage raise.
    """

    def __init__(self, run: Store, sweep: str, tracking_uri: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # the tables that it makes at first use
        self._run, self._sweep = run, sweep
        self._name = run.url.rpartition("/")[2]
        self._tags = {"sweep": sweep, "name": self._name}
        self.model = model_name(self._name, sweep)
        own = None if run.folder is None else database_url(run.folder / "mlflow.db")
        uri = tracking_uri or os.environ.get(VARIABLE) or own
        if uri is None:
            raise RegistryError(f"{run.url}: no place for MLflow's database: set {VARIABLE}")
        self.tracking_uri = uri
        self._artifacts = (run.folder / "mlartifacts").as_uri() if run.folder is not None and uri == own else None
        with reached(self.tracking_uri):
            from mlflow import MlflowClient

            self._client = MlflowClient(uri, uri)

    def check(self) -> None:
        """Tries what a sweep needs at its end: creates, logs and deletes a run with an artifact, and a model.

        The run stays in MLflow as a deleted one, `mlflow gc` removes it.
        """
        with reached(self.tracking_uri), little_patience():
            run_id = self._new_run(self._experiment(), "probe", {"sweep": self._sweep})
            try:
                self._client.log_metric(run_id, "probe", 1.0)
                with tempfile.TemporaryDirectory() as folder:
                    probe = Path(folder, "probe.txt")
                    probe.write_bytes(b"written before a sweep, to see that it can register its results\n")
                    self._client.log_artifact(run_id, str(probe))
            finally:
                self._client.delete_run(run_id)
            name = f"{self.model}-probe-{secrets.token_hex(4)}"
            self._client.create_registered_model(name)
            self._client.delete_registered_model(name)

    def log_trials(self, trials: Iterable[TrialRecord]) -> dict[str, str]:
        """One MLflow run per trial, closed: FINISHED (with the tag `stopped` if it was stopped early), FAILED with its
        error, or KILLED where the sweep was interrupted. Metrics are those of the rungs; their step is images seen.

        A run that exists gets only what it lacks.

        Args:
            trials: as trials/*.json hold them.

        Returns:
            trial_id -> run id.
        """
        with reached(self.tracking_uri):
            experiment = self._experiment()
            runs = self._runs(experiment)
            return {trial.trial_id: self._log_trial(experiment, runs, trial) for trial in trials}

    def where(self, runs: Mapping[str, str]) -> MlflowRuns:
        """What leads to the trials' runs; `runs` are those of `log_trials`."""
        with reached(self.tracking_uri):
            experiment, uri = self._experiment(), without_credentials(self.tracking_uri)
        return MlflowRuns(tracking_uri=uri, experiment_id=experiment, model=self.model, runs=dict(runs))

    def register_front(self, students: Iterable[CodedStudent], runs: Mapping[str, str]) -> list[Registered]:
        """Makes each student of the front a version of the registered model, unless it is one (same trial id and
        weights, and MLflow still has the files).

        A version carries the weights, the code that runs them, and its figures (figures.json: complexity, BD-rate, the
        curve, and bytes, PSNR and SHA-256 of every validation photograph's bitstream), so anybody can verify it.

        Args:
            students: of front.json.
            runs: of `log_trials`.

        Raises:
            LostWeights: a weights file that is needed is gone or damaged; then nothing is registered.
        """
        with reached(self.tracking_uri):
            students, aliases, known = list(students), self._aliases(), self._versions()
            lacking = [student for student in students if not self._is_whole(known.get(_identity(student)))]
            weights = {student.trial_id: read_weights(self._run, student) for student in lacking}
            registered = []
            for student in students:
                trial_id, version, new = student.trial_id, known.get(_identity(student)), False
                if trial_id in weights:
                    self._upload(runs[trial_id], student, weights[trial_id])
                if version is None or (trial_id in weights and version.run_id != runs[trial_id]):
                    version, new = self._new_version(runs[trial_id], student), True
                name, number = alias(trial_id, student.weights_digest), str(version.version)
                if aliases.get(name) != number:
                    self._client.set_registered_model_alias(self.model, name, number)
                entry = Registered(trial_id=trial_id, model=self.model, version=number, alias=name, new=new)
                registered.append(entry)
            numbers = {entry.trial_id: entry.version for entry in registered}
            for name, trial_id in best_of(students).items():
                if aliases.get(name) != numbers[trial_id]:
                    self._client.set_registered_model_alias(self.model, name, numbers[trial_id])
            return registered

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self.model)
        if experiment is None:
            with Unless(EXISTS):  # another process was faster
                self._client.create_experiment(self.model, self._artifacts, self._tags)
            experiment = self._client.get_experiment_by_name(self.model)
        where = f"the experiment {self.model} of MLflow at {without_credentials(self.tracking_uri)}"
        if experiment.tags.get("sweep") != self._sweep:
            raise RegistryError(f"{where} is not this sweep's: give the sweep another name")
        if experiment.lifecycle_stage != "active":
            restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            raise RegistryError(f"{where} was deleted: restore it ({restore}), or remove it for good (mlflow gc)")
        if self._artifacts not in (None, experiment.artifact_location):
            moved = f"{where} keeps its files in {experiment.artifact_location}, so the run folder was moved"
            raise RegistryError(f"{moved}: without its mlflow.db the same command makes it again")
        return str(experiment.experiment_id)

    def _aliases(self) -> Mapping[str, str]:
        """Alias -> version, of the registered model, which is made if there is none."""
        with Unless(GONE):
            return {name: str(to) for name, to in self._client.get_registered_model(self.model).aliases.items()}
        with Unless(EXISTS):  # another process was faster
            self._client.create_registered_model(self.model, self._tags, f"The Pareto front of {self._name}.")
        return {}

    def _runs(self, experiment: str) -> dict[tuple[str, ...], Run]:
        """The trials' runs by the values of `trial_log.identity`."""
        runs: dict[tuple[str, ...], Run] = {}
        token = None
        while True:
            page = self._client.search_runs([experiment], max_results=1000, page_token=token)
            for run in page:
                runs[tuple(run.data.tags.get(name, "") for name in ("sweep", "trial_id", "begun_by"))] = run
            token = page.token
            if not token:
                return runs

    def _new_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)

    def _log_trial(self, experiment: str, runs: Mapping[tuple[str, ...], Run], trial: TrialRecord) -> str:
        from mlflow.entities import Metric, Param, RunTag

        identity, tags = trial_log.identity(trial, self._sweep), trial_log.tags(trial)
        run = runs.get(tuple(identity.values()))
        before: Mapping[str, str] = run.data.tags if run else {}
        status = trial_log.STATUS[trial.status]
        if run and run.info.status == status and tags == {name: before[name] for name in {*tags, "error"} & {*before}}:
            return str(run.info.run_id)
        run_id = str(run.info.run_id) if run else self._new_run(experiment, trial.trial_id, identity)
        logged, now = int(before.get("images_seen", -1)), int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, rung.images_seen)
            for rung in trial.rungs
            if rung.images_seen > logged
            for name, value in trial_log.metrics(rung)
        ]
        params = [] if run and run.data.params else [Param(name, value) for name, value in trial_log.params(trial)]
        self._client.log_batch(run_id, metrics, params, [RunTag(name, value) for name, value in tags.items()])
        if "error" in before and "error" not in tags:  # it failed once, and was tried again
            self._client.delete_tag(run_id, "error")
        self._client.set_terminated(run_id, status)
        return run_id

    def _versions(self) -> dict[tuple[str | None, ...], ModelVersion]:
        """Versions by trial id and weights' digest; of equal ones the newest."""
        found = self._client.search_model_versions(f"name = '{self.model}'", max_results=10_000)
        of_sweep = [version for version in found if version.tags.get("sweep") == self._sweep]
        return {
            (version.tags.get("trial_id"), version.tags.get("weights_digest")): version
            for version in sorted(of_sweep, key=lambda version: int(version.version))
        }

    def _is_whole(self, version: ModelVersion | None) -> bool:
        """Whether MLflow still has the weights file of a version. What the file holds is checked when it is loaded."""
        if version is None:
            return False
        folder = f"{artifact_folder(version.tags['weights_digest'])}/artifacts"
        files: list[FileInfo] = []
        with Unless(GONE):  # its run was deleted for good
            files = self._client.list_artifacts(version.run_id, folder)
        return f"{folder}/{package.WEIGHTS}" in {file.path for file in files}

    def _upload(self, run_id: str, student: CodedStudent, weights: bytes) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary, "model")
            package.save(saved, student, weights)
            self._client.log_artifacts(run_id, str(saved), artifact_folder(student.weights_digest))

    def _new_version(self, run_id: str, student: CodedStudent) -> ModelVersion:
        return self._client.create_model_version(
            self.model,
            source=f"runs:/{run_id}/{artifact_folder(student.weights_digest)}",
            run_id=run_id,
            description=f"{student.trial_id}: BD-rate {student.bd_rate_pct:+.2f} %, {student.params:,} parameters",
            tags={
                "sweep": self._sweep,
                "trial_id": student.trial_id,
                "weights_digest": student.weights_digest,
                "teacher": student.teacher or "none",
                "bd_rate_pct": f"{student.bd_rate_pct:.4f}",
                "macs_per_pixel": f"{student.macs_per_pixel:.2f}",
                "params": str(student.params),
                "entropy_id": student.entropy_id,
                "encoder": f"{student.student.family}-n{student.student.encoder_N or student.student.N}",
                "decoder": f"{student.student.family}-n{student.student.N}",
                "images_seen": str(student.images_seen),
            },
        )


def _identity(student: CodedStudent) -> tuple[str, str]:
    return student.trial_id, student.weights_digest
