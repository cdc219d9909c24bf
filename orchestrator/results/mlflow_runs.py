"""mlflow.json: where the trials' MLflow runs are (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.results.format import ResultFile

MLFLOW_RUNS = "mlflow.json"
LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves a database


class MlflowRuns(ResultFile):
    """mlflow.json: written when the trials were logged."""

    format: Literal[1] = 1
    tracking_uri: str  # without credentials
    experiment_id: str
    model: str  # the registered model
    runs: dict[str, str]  # trial -> run

    @property
    def served(self) -> bool:
        """Whether it is a server, not a database that `mlflow ui` has to serve first."""
        return self.tracking_uri.startswith(("http://", "https://"))

    def page_of(self, trial_id: str) -> str | None:
        """The address of a trial's run in MLflow's pages; None: it was not logged."""
        run = self.runs.get(trial_id)
        place = self.tracking_uri.rstrip("/") if self.served else LOCAL
        return None if run is None else f"{place}/#/experiments/{self.experiment_id}/runs/{run}"
