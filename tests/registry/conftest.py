from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.registry.reach import database_url


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a row: making them takes seconds, copying them does not."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(database_url(file)).search_experiments()
    return file


@pytest.fixture
def database(empty_database: Path) -> Callable[[Path], str]:
    """Puts such a database where it is told to; returns MLflow's name for it."""

    def copy(file: Path) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_database, file)
        return database_url(file)

    return copy


@pytest.fixture
def uri(tmp_path: Path, database: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty MLflow."""
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the artifacts of a database without a server
    return database(tmp_path / "shared.db")
