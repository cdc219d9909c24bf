"""The same against a real MLflow server, which keeps the artifacts itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.registry.reach import RegistryError
from testing.servers import free_ports
from tests.registry.somebody import Somebody

pytestmark = pytest.mark.slow  # a server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL, and the folder where it keeps artifacts."""
    folder, (port,) = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
    with (folder / "log").open("wb") as log:
        quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(command, cwd=folder, env=quiet, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield url, folder / "artifacts"
    finally:
        process.terminate()
        process.wait(60)


def test_a_sweep_is_checked_registered_and_found_again(server: tuple[str, Path], tmp_path: Path) -> None:
    url, artifacts = server
    one, two = Somebody(tmp_path / "one", url), Somebody(tmp_path / "two", url)
    one.registry.check()
    student = one.student("01-a.b", b"mine")
    (mine,) = one.register(student, begun_by="one")
    (theirs,) = two.register(two.student("01-a.b", b"theirs"), begun_by="two")
    (again,) = one.register(student, begun_by="one")
    assert (mine.version, theirs.version, again.version, again.new) == ("1", "2", "1", False)
    assert one.weights_of(mine, tmp_path) == b"mine" and two.weights_of(theirs, tmp_path) == b"theirs"

    shutil.rmtree(artifacts)
    (again,) = one.register(student, begun_by="one")
    assert not again.new and one.weights_of(again, tmp_path) == b"mine"


def test_a_server_that_cannot_store_artifacts_is_found_by_the_check(server: tuple[str, Path], tmp_path: Path) -> None:
    url, artifacts = server
    shutil.rmtree(artifacts, ignore_errors=True)
    artifacts.write_text("in the way")
    try:
        with pytest.raises(RegistryError, match=r"^MLflow at http://[^\n]*$"):
            Somebody(tmp_path, url).registry.check()
        assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ  # its own patience is back after the check
    finally:
        artifacts.unlink()
