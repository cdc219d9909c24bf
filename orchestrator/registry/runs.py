"""MLflow's runs of a sweep: one for the sweep with its specification and report, and one below it for each trial."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.registry import trial_log
from orchestrator.registry.facts import SPEC, SweepFacts
from orchestrator.results.front import CodedStudent
from orchestrator.trials.record import TrialRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

IDENTITY = ("sweep", "trial_id", "begun_by")
SWEEP_RUN = "sweep"  # in place of a trial's id, which begins with a digit


class Runs:
    """The runs of an experiment, as they are found and brought up to date.

    Args:
        client: of MLflow.
        experiment: its id.
        facts: of the sweep.
    """

    def __init__(self, client: MlflowClient, experiment: str, facts: SweepFacts) -> None:
        self._client, self._experiment, self._facts = client, experiment, facts
        self._known: dict[tuple[str, ...], Run] = {}
        token = None
        while True:
            page = client.search_runs([experiment], max_results=1000, page_token=token)
            self._known |= {tuple(run.data.tags.get(name, "") for name in IDENTITY): run for run in page}
            token = page.token
            if not token:
                return

    def of_sweep(self, first: TrialRecord, *, live: bool) -> str:
        """The id of the sweep's own run.

        Args:
            first: the record of its first trial: two people may run one sweep.
            live: the sweep is running.
        """
        identity = trial_log.identity(first, self._facts.sweep) | {"trial_id": SWEEP_RUN}
        run = self._known.get(tuple(identity.values()))
        if run is None:
            run = self._create(f"sweep {self._facts.name}", identity, trial_log.began_ms(first))
        run_id = str(run.info.run_id)
        if self._facts.spec_text is not None:
            self.attach(run_id, SPEC, self._facts.spec_text)
        self._set_status(run, "RUNNING" if live else "FINISHED", None)
        return run_id

    def attach(self, run_id: str, name: str, content: bytes) -> None:
        """Logs a file as an artifact of a run, unless the run has it."""
        tag, digest = f"sha256.{name}", hashlib.sha256(content).hexdigest()
        if self._client.get_run(run_id).data.tags.get(tag) == digest:
            return
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, name)
            path.write_bytes(content)
            self._client.log_artifact(run_id, str(path))
        self._client.set_tag(run_id, tag, digest)

    def log(self, trial: TrialRecord, parent: str, *, live: bool) -> str:
        """Brings a trial's run up to date, and returns its id; what it has is not logged again.

        Args:
            trial: its record.
            parent: the sweep's own run.
            live: the sweep is running; a trial that has not ended is so too.
        """
        from mlflow.entities import Metric, Param, RunTag

        identity = trial_log.identity(trial, self._facts.sweep)
        tags = {**trial_log.tags(trial), "mlflow.parentRunId": parent}
        run = self._known.get(tuple(identity.values()))
        if run is None:
            run = self._create(trial.trial_id, identity, trial_log.began_ms(trial))
        before, run_id = run.data.tags, str(run.info.run_id)
        wanted = trial_log.RUNNING if live and not trial.ended else trial_log.STATUS[trial.status]
        logged = int(before.get("images_seen", -1)) if trial_log.FIRST in run.data.metrics else -1
        metrics = [
            Metric(name, value, round(1000 * rung.ended_at), rung.images_seen)
            for rung in trial.rungs
            if rung.images_seen > logged
            for name, value in trial_log.metrics(rung).items()
        ]
        metrics += self._coded(trial, run)
        params = {} if run.data.params else trial_log.params(trial, self._facts)
        if not run.inputs.dataset_inputs and self._facts.datasets:
            self._client.log_inputs(run_id, self._datasets())
        changed = {name: value for name, value in tags.items() if before.get(name) != value}
        if metrics or params or changed:  # tags last: they say which rungs are there
            self._client.log_batch(run_id, metrics, [Param(*param) for param in params.items()])
            self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in changed.items()])
        if "error" in before and "error" not in tags:  # it failed once, and was tried again
            self._client.delete_tag(run_id, "error")
        self._set_status(run, wanted, trial_log.ended_ms(trial))
        if live:
            self._known[tuple(identity.values())] = self._client.get_run(run_id)
        return run_id

    def _create(self, name: str, tags: Mapping[str, str], began_ms: int | None) -> Run:
        tags = {**tags, **trial_log.source_tags(self._facts)}
        run = self._client.create_run(self._experiment, start_time=began_ms, tags=tags, run_name=name)
        self._known[tuple(tags[key] for key in IDENTITY)] = run
        return run

    def _set_status(self, run: Run, status: str, ended_ms: int | None) -> None:
        if run.info.status == status:
            return
        if status == trial_log.RUNNING:
            self._client.update_run(run.info.run_id, status=status)
        else:
            self._client.set_terminated(run.info.run_id, status, ended_ms)

    def _coded(self, trial: TrialRecord, run: Run) -> list[Metric]:
        """What of a trial's real bitstreams, and of coding with its bundle, its run does not have."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        return [
            Metric(name, value, now, student.images_seen)
            for student in self._facts.coded
            if (student.trial_id, student.weights_digest) == (trial.trial_id, trial.weights_digest)
            for name, value in self._figures(student).items()
            if run.data.metrics.get(name) != value
        ]

    def _figures(self, student: CodedStudent) -> dict[str, float]:
        return trial_log.coded_metrics(student) | trial_log.bundle_metrics(self._facts.costs_of(student))

    def _datasets(self) -> list[DatasetInput]:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        return [
            DatasetInput(
                Dataset(
                    name=data.name,
                    digest=data.digest[:36],  # all that MLflow takes
                    source_type="local",
                    source=f'{{"photographs": {len(data.digests)}, "sha256": "{data.digest}"}}',
                ),
                [InputTag("mlflow.data.context", "training" if data.name == "train" else data.name)],
            )
            for data in self._facts.datasets
        ]
