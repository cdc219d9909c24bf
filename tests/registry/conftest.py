from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.registry.database import database_url
from orchestrator.results.bundles import packed

LAMBDAS = (0.0018, 0.0067, 0.025)


@dataclass(frozen=True)
class Exported:
    """A small untrained codec whose latents are large enough to take bits."""

    weights: bytes
    bundle: bytes  # zipped


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exporting takes many seconds."""
    import torch

    from models.export import export
    from models.ladder import RateLadder
    from models.weights import load_ladder, save_ladder

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(2)
    weights = folder / "c.safetensors"
    ladder = RateLadder(family="hyperprior", N=8, M=12, lambdas=LAMBDAS)
    with torch.no_grad():
        ladder.networks[0].g_a[-1].weight.mul_(30)
    save_ladder(weights, ladder)
    bundle = export(load_ladder(weights), folder / "bundle", name="c")
    return Exported(weights.read_bytes(), packed(bundle))


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
