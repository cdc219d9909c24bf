"""`mlflow models serve` answers real HTTP requests: a photograph becomes a stream, a stream a picture."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.weights import digest
from orchestrator.registry.database import database_url
from orchestrator.results.bundles import bundle_file
from testing.servers import free_ports
from tests.registry.conftest import Exported
from tests.registry.somebody import Somebody

pytestmark = pytest.mark.slow  # a server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, exported: Exported) -> Iterator[str]:
    """The URL of a registered student's server."""
    folder, (port,) = tmp_path_factory.mktemp("served"), free_ports(1)
    uri = database_url(folder / "quick/mlflow.db")
    (folder / "quick").mkdir()
    (folder / "weights").write_bytes(exported.weights)
    one = Somebody(folder, uri)
    one.run.replace(bundle_file("01-c", digest(folder / "weights")), exported.bundle)
    (version,) = one.register(one.student("01-c", exported.weights))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", version.uri, "-p", str(port)]
    command += ["--env-manager", "local", "--workers", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where uvicorn is
    environment.pop("PYTHONPATH", None)  # the code that is shipped with the version
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 400
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def asked(served: str) -> Callable[..., list[bytes]]:
    """Sends rows, and returns those of the answer."""

    def ask(*rows: bytes, **params: float) -> list[bytes]:
        data = [[base64.b64encode(row).decode()] for row in rows]
        request = {"dataframe_split": {"columns": ["data"], "data": data}, "params": params}
        body = json.dumps(request).encode()
        sent = urllib.request.Request(served, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(sent) as answer:
            predictions = json.load(answer)["predictions"]
        return [base64.b64decode(row["data"]) for row in predictions]

    return ask


def test_a_photograph_and_a_stream_go_through_a_real_server(asked: Callable[..., list[bytes]]) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    transparent, jpeg = io.BytesIO(), io.BytesIO()
    Image.fromarray(rgba).save(transparent, "PNG")
    Image.fromarray(rgba[..., :3]).save(jpeg, "JPEG")
    first, second = asked(transparent.getvalue(), jpeg.getvalue(), rate=0)
    assert first.startswith(b"LD") and second.startswith(b"LD")
    kept, decoded = (Image.open(io.BytesIO(png)) for png in asked(first, second))
    assert (kept.format, kept.mode, kept.size, decoded.mode) == ("PNG", "RGBA", (70, 50), "RGB")
    assert np.array_equal(np.asarray(kept)[..., 3], rgba[..., 3])
    (higher,), (middle,), (default,) = (asked(jpeg.getvalue(), **given) for given in ({"rate": 2}, {"rate": 1.0}, {}))
    assert len(higher) > len(second) and middle == default
    assert asked(jpeg.getvalue(), rate=0.5) != [second]


@pytest.mark.parametrize(
    ("row", "params", "said"),
    [
        (b"no picture", {}, "row 0: the picture: not a picture"),
        (b"LD damaged", {}, "row 0: "),
        (b"", {"rate": 9.0}, "row 0: "),
    ],
)
def test_what_cannot_be_coded_is_refused_with_a_line(
    asked: Callable[..., list[bytes]], row: bytes, params: dict[str, float], said: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(row, **params)
    assert refused.value.code == 400
    *_, line = json.load(refused.value)["message"].splitlines()  # after MLflow's own words
    assert line.startswith(f"Error: {said}")
