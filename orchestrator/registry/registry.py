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
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from orchestrator.registry import package
from orchestrator.registry.database import artifacts_of, create, database_url, settle
from orchestrator.registry.facts import SweepFacts, read_facts
from orchestrator.registry.model_card import model_card
from orchestrator.registry.names import BALANCED, alias, best_of, model_name
from orchestrator.registry.plot import rate_distortion
from orchestrator.registry.reach import (
    EXISTS,
    GONE,
    VARIABLE,
    RegistryError,
    Unless,
    little_patience,
    reached,
)
from orchestrator.registry.registered import Registered
from orchestrator.registry.runs import Runs
from orchestrator.registry.versions import Versions, identity
from orchestrator.results.bundles import bundle_file, unpacked
from orchestrator.results.format import FormatError
from orchestrator.results.front import CodedStudent
from orchestrator.results.mlflow_runs import MlflowRuns
from orchestrator.spec.messages import without_credentials
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trial
from orchestrator.trials.record import TrialRecord
from orchestrator.trials.weights import read_weights

DATABASE = "mlflow.db"


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
        own = None if run.folder is None else database_url(run.folder / DATABASE)
        uri = tracking_uri or os.environ.get(VARIABLE) or own
        if uri is None:
            raise RegistryError(f"{run.url}: no place for MLflow's database: set {VARIABLE}")
        self.tracking_uri = uri
        self._artifacts = artifacts_of(run.folder / DATABASE) if run.folder is not None and uri == own else None
        self._live: tuple[Runs, str] | None = None
        with reached(self.tracking_uri):
            from mlflow import MlflowClient

            create(self.tracking_uri)
            if self._artifacts is not None:
                settle(self.tracking_uri)
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
        """Logs every trial as a run below the sweep's own one, and closes them; what is there is not logged again.

        Args:
            trials: the records.

        Returns:
            Trial id -> run id.
        """
        with reached(self.tracking_uri):
            trials = sorted(trials, key=lambda trial: trial.trial_id)
            runs = self._runs()
            if not trials:
                return {}
            parent = runs.of_sweep(trials[0], live=False)
            return {trial.trial_id: runs.log(trial, parent, live=False) for trial in trials}

    def log_rung(self, trial: TrialRecord, first: TrialRecord) -> None:
        """Logs a trial while the sweep runs, for MLflow's page as a live view.

        Args:
            trial: its record.
            first: the record of the sweep's first trial.
        """
        with reached(self.tracking_uri):
            if self._live is None:
                runs = self._runs()
                self._live = runs, runs.of_sweep(first, live=True)
            runs, parent = self._live
            runs.log(trial, parent, live=True)

    def attach(self, first: TrialRecord, name: str, content: bytes) -> None:
        """Logs a file with the sweep's own run, unless it is there.

        Args:
            first: the record of the sweep's first trial.
            name: of the file.
            content: of the file.
        """
        with reached(self.tracking_uri):
            runs = self._runs()
            runs.attach(runs.of_sweep(first, live=False), name, content)

    def where(self, runs: Mapping[str, str]) -> MlflowRuns:
        """What leads to the trials' runs; `runs` are those of `log_trials`."""
        with reached(self.tracking_uri):
            experiment, uri = self._experiment(), without_credentials(self.tracking_uri)
        return MlflowRuns(tracking_uri=uri, experiment_id=experiment, model=self.model, runs=dict(runs))

    def register_front(self, students: Iterable[CodedStudent], runs: Mapping[str, str]) -> list[Registered]:
        """Makes each student of the front a version of the registered model, unless it is one (same trial id and
        weights, and MLflow still has the files).

        A version carries a bundle, which runs without torch, the weights, the code that runs the bundle, a model card,
        and its figures (figures.json: complexity, BD-rate, the curve, and bytes, PSNR and SHA-256 of every validation
        photograph's bitstream).

        Args:
            students: of front.json; their bundles are in the run folder.
            runs: of `log_trials`.

        Raises:
            LostWeights: a weights file that is needed is gone or damaged; then nothing is registered.
            FormatError: so is a bundle.
        """
        with reached(self.tracking_uri):
            students, aliases, versions = list(students), self._aliases(), self._versions()
            known = versions.known()
            lacking = [student for student in students if not versions.is_whole(known.get(identity(student)))]
            contents = {student.trial_id: self._content(student) for student in lacking}
            registered = []
            for student in students:
                trial_id, version, new = student.trial_id, known.get(identity(student)), False
                content = contents.get(trial_id)
                if content is not None:
                    if version is not None and version.run_id != runs[trial_id]:
                        version = None  # its run was deleted
                    if version is None:
                        version, new = versions.add(runs[trial_id], content), True
                    else:
                        versions.mend(version, content)
                assert version is not None
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

    @cached_property
    def _facts(self) -> SweepFacts:
        return read_facts(self._run, self._sweep)

    def _versions(self) -> Versions:
        return Versions(self._client, self.model, self._sweep)

    def _runs(self) -> Runs:
        return Runs(self._client, self._experiment(), self._facts)

    def _content(self, student: CodedStudent) -> package.Content:
        record, weights = read_trial(self._run, student.trial_id), read_weights(self._run, student)
        name = bundle_file(student.trial_id, student.weights_digest)
        try:
            bundle = unpacked(self._run.read(name), f"{self._run.url}/{name}")
        except FileNotFoundError:
            raise FormatError(f"{self._run.url}/{name} is gone; the same command makes it again") from None
        uri = f"models:/{self.model}@{alias(student.trial_id, student.weights_digest)}"
        card = model_card(student, record, self._facts, uri)
        plot = rate_distortion(student, record, self._facts)
        costs = self._facts.costs_of(student)
        return package.Content(student=student, weights=weights, bundle=bundle, card=card, plot=plot, costs=costs)

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
        return str(experiment.experiment_id)

    def _aliases(self) -> Mapping[str, str]:
        """Alias -> version, of the registered model, which is made if there is none."""
        with Unless(GONE):
            return {name: str(to) for name, to in self._client.get_registered_model(self.model).aliases.items()}
        with Unless(EXISTS):  # another process was faster
            text = f"The Pareto front of the sweep {self._name}. The alias balanced: {BALANCED}."
            self._client.create_registered_model(self.model, self._tags, text)
        return {}

    def _new_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)
