"""The only module that writes to MLflow: a run per trial, and the front's students as versions of a registered model.

A sweep has one registered model, `lic-distillery-<name of the run folder>`, and each student of its front is a version
of it, with the trial's id as alias: `models:/lic-distillery-quickstart@03-hyperprior-n16`. Results are files first:
all that is logged here comes from the run folder and can be logged again from it. One process, the sweep's driver,
writes; nothing here imports torch.

Everything goes to MLFLOW_TRACKING_URI where it is set, else to a SQLite file in the run folder with the artifacts
beside it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.results.front import CodedStudent
from orchestrator.spec.messages import without_credentials
from orchestrator.trials.record import Rung, Status, TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import Run

SHIPPED_CODE = "models/*.py"  # all of them: what a ladder imports grows with its families
REQUIREMENTS = ("mlflow", "torch", "torchvision", "compressai", "numpy", "safetensors")
DEFAULT_RATE_POINT = 2
MEASURED = ("bpp", "psnr_db", "ms_ssim_db")
STATUS: Mapping[Status, str] = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "lost": "FAILED",
    "running": "KILLED",
    "saved": "KILLED",
}
FIGURES = {
    *("trial_id", "teacher", "student", "params", "macs_per_pixel"),
    *("bd_rate_pct", "images_seen", "points", "validation"),
}


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of the registered model."""

    trial_id: str
    model: str
    version: str
    new: bool  # False: it existed already, with this trial's id and these weights

    @property
    def uri(self) -> str:
        """What MLflow loads the version by."""
        return f"models:/{self.model}/{self.version}"


class RegistryError(RuntimeError):
    """MLflow cannot be reached, or files of the run folder are missing; the message is one line."""


def database_url(file: Path) -> str:
    """What MLflow calls a SQLite file. Quoted, since SQLAlchemy decodes %20 and the like in it."""
    return f"sqlite:///{quote(str(file))}"


class Registry:
    """Brings a run folder into MLflow.

    Args:
        run_folder: a local folder; its name names the experiment and the registered model.
        tracking_uri: of MLflow; by default MLFLOW_TRACKING_URI, else SQLite in the run folder.
    """

    def __init__(self, run_folder: str | os.PathLike[str], tracking_uri: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # the tables that it makes at first use
        from mlflow import MlflowClient

        self.run_folder = Path(run_folder).absolute()
        self.model = f"lic-distillery-{self.run_folder.name}"
        own = database_url(self.run_folder / "mlflow.db")
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        self._artifacts = (self.run_folder / "mlartifacts").as_uri() if self.tracking_uri == own else None
        self._client = MlflowClient(self.tracking_uri, self.tracking_uri)

    def log_trials(self, trials: Iterable[TrialRecord]) -> dict[str, str]:
        """One MLflow run per trial, closed: FINISHED (with the tag `stopped` if it was stopped early), FAILED with its
        error, or KILLED where the sweep was interrupted. Metrics are those of the rungs; their step is images seen.

        A run that exists gets only the rungs that it lacks.

        Args:
            trials: as trials/*.json hold them.

        Returns:
            trial_id -> run id.
        """
        experiment = self._experiment()
        runs = self._runs(experiment)
        return {trial.trial_id: self._log_trial(experiment, runs.get(trial.trial_id), trial) for trial in trials}

    def register_front(self, students: Iterable[CodedStudent]) -> list[Registered]:
        """Makes each student of the front a version of the registered model, unless it is one (same trial id and
        weights).

        A version carries the weights, the code that runs them, and its figures (figures.json: complexity, BD-rate, the
        curve, and bytes, PSNR and SHA-256 of every validation photograph's bitstream), so anybody can verify it.

        Args:
            students: of front.json; `weights` is relative to the run folder.

        Raises:
            RegistryError: a weights file is missing.
        """
        from mlflow.exceptions import MlflowException

        students = list(students)
        for student in students:
            if not (self.run_folder / student.weights).is_file():
                raise RegistryError(f"{student.trial_id}: no weights file {self.run_folder / student.weights}")
        try:
            self._client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(self.model, description=f"The Pareto front of {self.run_folder.name}.")
        known = {
            (present.tags.get("trial_id"), present.tags.get("weights_digest")): present.version
            for present in self._client.search_model_versions(f"name = '{self.model}'", max_results=10_000)
        }
        experiment = self._experiment()
        runs = self._runs(experiment)
        registered = []
        for student in students:
            trial_id = student.trial_id
            number = known.get((trial_id, student.weights_digest))
            if new := number is None:
                run = runs.get(trial_id)
                number = self._register(run.info.run_id if run else self._new_run(experiment, trial_id), student)
            self._client.set_registered_model_alias(self.model, trial_id, number)
            registered.append(Registered(trial_id=trial_id, model=self.model, version=str(number), new=new))
        return registered

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Inside, what MLflow raises becomes RegistryError."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            where, line = without_credentials(self.tracking_uri), " ".join(str(error).split())
            hint = "results are in the run folder, and the same command registers them"
            raise RegistryError(f"MLflow at {where}: {without_credentials(line)[:300]}; {hint}") from error

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self.model)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(self.model, artifact_location=self._artifacts))

    def _runs(self, experiment: str) -> dict[str, Run]:
        """The trials' runs by trial id."""
        runs: dict[str, Run] = {}
        token = None
        while True:
            page = self._client.search_runs([experiment], max_results=1000, page_token=token)
            runs.update((run.data.tags["trial_id"], run) for run in page if "trial_id" in run.data.tags)
            token = page.token
            if not token:
                return runs

    def _new_run(self, experiment: str, trial_id: str) -> str:
        run = self._client.create_run(experiment, tags={"trial_id": trial_id}, run_name=trial_id)
        return str(run.info.run_id)

    def _log_trial(self, experiment: str, run: Run | None, trial: TrialRecord) -> str:
        from mlflow.entities import Metric, Param, RunTag

        run_id = run.info.run_id if run else self._new_run(experiment, trial.trial_id)
        logged = int(run.data.tags.get("images_seen", -1)) if run else -1
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, rung.images_seen)
            for rung in trial.rungs
            if rung.images_seen > logged
            for name, value in _metrics(rung)
        ]
        params = [] if run and run.data.params else [Param(name, str(value)) for name, value in _params(trial)]
        tags = {
            "status": trial.status,
            "stopped": str(trial.status == "stopped").lower(),
            "images_seen": str(trial.images_seen),
            "error": trial.error,
            "weights_digest": trial.weights_digest,
        }
        present = [RunTag(name, str(value)[:5000]) for name, value in tags.items() if value is not None]
        self._client.log_batch(run_id, metrics, params, present)
        if run and "error" in run.data.tags and tags["error"] is None:  # it failed once, and was tried again
            self._client.delete_tag(run_id, "error")
        self._client.set_terminated(run_id, STATUS[trial.status])
        return str(run_id)

    def _register(self, run_id: str, student: CodedStudent) -> str:
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ParamSchema, ParamSpec

        with tempfile.TemporaryDirectory() as temporary:
            staged, saved = Path(temporary, "code"), Path(temporary, "model")
            root = Path(__file__).parents[2]
            for path in root.glob(SHIPPED_CODE):
                target = staged / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            weights = Path(temporary, Path(student.weights).name)  # MLflow decodes %20 in the path that it is given
            shutil.copyfile(self.run_folder / student.weights, weights)
            figures = Path(temporary, "figures.json")
            figures.write_text(student.model_dump_json(include=FIGURES, indent=1))
            with warnings.catch_warnings():
                # An example would be run through the model here, which needs torch.
                warnings.filterwarnings("ignore", message=".*input example was not provided", category=UserWarning)
                mlflow.pyfunc.save_model(
                    path=str(saved),
                    python_model=str(Path(__file__).with_name("registered_codec.py")),
                    artifacts={"weights": str(weights), "figures": str(figures)},
                    code_paths=[str(staged / "models")],
                    # Inferring them would build the model in a subprocess and import torch.
                    pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
                    signature=ModelSignature(params=ParamSchema([ParamSpec("rate_point", "long", DEFAULT_RATE_POINT)])),
                )
            self._client.log_artifacts(run_id, str(saved), "model")
        self._client.set_terminated(run_id)
        created = self._client.create_model_version(
            self.model,
            source=f"runs:/{run_id}/model",
            run_id=run_id,
            description=f"{student.trial_id}: BD-rate {student.bd_rate_pct:+.2f} %, {student.params:,} parameters",
            tags={
                "trial_id": student.trial_id,
                "weights_digest": student.weights_digest,
                "teacher": student.teacher or "none",
                "bd_rate_pct": f"{student.bd_rate_pct:.4f}",
                "macs_per_pixel": f"{student.macs_per_pixel:.2f}",
                "params": str(student.params),
                "images_seen": str(student.images_seen),
            },
        )
        return str(created.version)


def _metrics(rung: Rung) -> list[tuple[str, float]]:
    """Names carry their units; bd_rate_pct and log_lagrangian_ratio are better when lower."""
    metrics = [(f"val_{name}", getattr(rung, name)) for name in ("bd_rate_pct", "log_lagrangian_ratio", "overlap")]
    for point in rung.points:
        metrics += [(f"val_{name}_rate_{point.rate_point}", getattr(point, name)) for name in MEASURED]
    return [(name, float(value)) for name, value in metrics if value is not None]


def _params(trial: TrialRecord) -> list[tuple[str, object]]:
    values = trial.model_dump(mode="json", include={"student", "loss"})
    flat = [(f"student_{name}", value) for name, value in values["student"].items()]
    flat += [
        (f"loss_{name}", value if isinstance(value, str | float) else json.dumps(value))
        for name, value in values["loss"].items()
    ]
    return [
        *flat,
        *((name, getattr(trial, name)) for name in ("teacher", "seed", "params", "macs_per_pixel", "complexity_class")),
    ]
