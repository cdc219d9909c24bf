from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from models.catalogue import SHIPPED
from orchestrator.sweep.cluster import connected

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with connected(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def tiny_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three trials of one class that takes seconds; its student is a teacher, so its curve is valid."""
    teachers = {name: str(SHIPPED / f"teacher-{name}.safetensors") for name in ("hyperprior", "mean-scale")}
    data = {
        "name": "tiny",
        "trials": 3,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": name, "weights": weights} for name, weights in teachers.items()],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teachers["hyperprior"]}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "training": {"batch_size": 8, "ranks_per_trial": 2, "gpus_per_rank": 0.0},
        "concurrent_trials": 1,
        "early_stopping": {"rungs": [32, 64, 96], "reduction": 2},
        "candidates": 2,
    }
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def sweep_command(spec: Path, folder: Path) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "jobs" / "sweep_feds.py"), "--spec", str(spec)),
        *("--set", f"results={folder / 'runs'}", "--set", f"store={folder / 'store'}"),
    ]


def start_sweep(spec: Path, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Starts the sweep in a process of its own, outside the repository, as a user does; `variables`: environment.

    What it prints is in a file, see `printed`: a pipe stays open for as long as the Ray of a killed sweep lives.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            sweep_command(spec, folder),
            cwd=folder,
            env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"} | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def printed(folder: Path) -> str:
    """What the sweep that was started last in this folder has printed."""
    return (folder / "output.txt").read_text()
