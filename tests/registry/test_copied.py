"""A run folder that was copied, read by MLflow alone: this project has not opened it, and is not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.registry.database import database_url
from orchestrator.registry.reach import VARIABLE
from orchestrator.registry.registry import Registry
from orchestrator.results.bundles import bundle_file
from orchestrator.store.store import Store
from tests.registry.conftest import Exported
from tests.registry.somebody import SWEEP, Somebody

LOADER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, mlflow
try:
    codec = mlflow.pyfunc.load_model(sys.argv[1]).unwrap_python_model()
except mlflow.MlflowException as error:
    print(json.dumps(str(error)))
    sys.exit()
rgb = np.zeros((70, 90, 3), np.uint8)
assert codec.decode(codec.encode(rgb, 1.5)).shape == rgb.shape
print(json.dumps(sys.modules["lic_codec"].__file__))
"""


def loaded(model: str, tmp_path: Path, **variables: str) -> str:
    """The file of the code that coded with the model, in a process without this repository; or why there is none."""
    (tmp_path / "nowhere").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", VARIABLE)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADER, model],
        cwd=tmp_path / "nowhere",
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [*(tmp_path / "nowhere").iterdir()] == []  # no database, no folder of MLflow's
    return str(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow  # processes that import MLflow
def test_a_version_of_a_copied_run_folder_loads_from_its_folder_and_by_its_name_once_it_was_opened(
    tmp_path: Path, database: Callable[[Path], str], exported: Exported
) -> None:
    one = Somebody(tmp_path / "before it", database(tmp_path / "before it/quick/mlflow.db"))
    student = one.student("01-c", exported.weights)
    one.run.replace(bundle_file("01-c", student.weights_digest), exported.bundle)
    (version,) = one.register(student)
    copy = tmp_path / "af%ter it"
    shutil.copytree(tmp_path / "before it/quick", copy)
    shutil.rmtree(tmp_path / "before it")

    (folder,) = copy.glob("mlartifacts/*/artifacts/model-*")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != "__pycache__"}
    assert Path(loaded(str(folder), tmp_path)).is_relative_to(folder / "code")
    assert before.items() <= {path: path.stat().st_mtime_ns for path in copy.rglob("*")}.items()

    uri = database_url(copy / "mlflow.db")
    assert "MLmodel" in loaded(version.uri, tmp_path, MLFLOW_TRACKING_URI=uri)  # it looks where the folder was
    Registry(Store(copy), SWEEP, uri)
    assert loaded(version.uri, tmp_path, MLFLOW_TRACKING_URI=uri).endswith("lic_codec/__init__.py")
