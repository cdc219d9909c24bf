"""The versions of a sweep's registered model, as they are found, added, and mended where their files are gone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.registry import package
from orchestrator.registry.model_card import described
from orchestrator.registry.names import artifact_folder, version_tags
from orchestrator.registry.reach import GONE, Unless
from orchestrator.results.front import CodedStudent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo
    from mlflow.entities.model_registry import ModelVersion

Identity = tuple[str | None, str | None]
MENDING = "mending"  # a version's tag while its files are not all there


def identity(student: CodedStudent) -> Identity:
    """By which a version is found again: the trial's id and the weights' digest."""
    return student.trial_id, student.weights_digest


class Versions:
    """The versions of a registered model.

    Args:
        client: of MLflow.
        model: its name.
        sweep: the sweep's id; versions of another one are passed over.
    """

    def __init__(self, client: MlflowClient, model: str, sweep: str) -> None:
        self._client, self._model, self._sweep = client, model, sweep

    def known(self) -> dict[Identity, ModelVersion]:
        """Those that are there; of equal ones the newest."""
        found = self._client.search_model_versions(f"name = '{self._model}'", max_results=10_000)
        of_sweep = [version for version in found if version.tags.get("sweep") == self._sweep]
        return {
            (version.tags.get("trial_id"), version.tags.get("weights_digest")): version
            for version in sorted(of_sweep, key=lambda version: int(version.version))
        }

    def is_whole(self, version: ModelVersion | None) -> bool:
        """Whether MLflow still has a version's weights and bundle. Their content is checked when they are loaded."""
        if version is None or MENDING in version.tags:
            return False
        folder = f"{artifact_folder(version.tags['weights_digest'])}/artifacts"
        files: list[FileInfo] = []
        with Unless(GONE):  # its run was deleted for good
            files = self._client.list_artifacts(version.run_id, folder)
        return {f"{folder}/{package.WEIGHTS}", f"{folder}/{package.BUNDLE}"} <= {file.path for file in files}

    def add(self, run_id: str, content: package.Content) -> ModelVersion:
        """A new version, made after all its files: whenever this is killed, a version has them."""
        self._upload(run_id, content)
        return self._client.create_model_version(
            self._model,
            source=f"runs:/{run_id}/{artifact_folder(content.student.weights_digest)}",
            run_id=run_id,
            description=described(content.card),
            tags=self._tags(content),
        )

    def mend(self, version: ModelVersion, content: package.Content) -> None:
        """Gives a version its files again. It is marked meanwhile: if this is killed, the next one does all of it."""
        changed = {name: value for name, value in self._tags(content).items() if version.tags.get(name) != value}
        for name, value in {MENDING: "true", **changed}.items():
            self._client.set_model_version_tag(self._model, version.version, name, value)
        self._client.update_model_version(self._model, version.version, described(content.card))
        self._upload(version.run_id, content)
        self._client.delete_model_version_tag(self._model, version.version, MENDING)

    def _tags(self, content: package.Content) -> dict[str, str]:
        return {"sweep": self._sweep, **version_tags(content.student, content.costs)}

    def _upload(self, run_id: str, content: package.Content) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary, "model")
            package.save(saved, content)
            self._client.log_artifacts(run_id, str(saved), artifact_folder(content.student.weights_digest))
