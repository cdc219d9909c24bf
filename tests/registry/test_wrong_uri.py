"""An MLFLOW_TRACKING_URI that cannot be used is one line before anything is trained, and one line at the end."""

from __future__ import annotations

import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.registry.reach import VARIABLE, RegistryError
from orchestrator.spec.messages import SpecError
from orchestrator.store.store import Store
from orchestrator.sweep.front.publish import register, try_registry
from tests.registry.somebody import SWEEP, Somebody

MISNAMED = ("./mlruns", "mlruns", "file:///tmp/mlruns", "localhost:5000", "htp://host", "sqlite://one-slash.db")
WITHOUT_DRIVER = ("mysql://me:word@host/db", "postgresql://me:word@host/db")


@pytest.fixture(autouse=True)
def no_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("uri", [*MISNAMED, *WITHOUT_DRIVER])
def test_what_is_no_mlflow_is_refused_with_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(SpecError) as refused:
        try_registry(Store(tmp_path / "run"), SWEEP)
    (line,) = str(refused.value).splitlines()
    start = (
        r"MLFLOW_TRACKING_URI: '.*' is not allowed: http://HOST:PORT, https://HOST, or a database such as sqlite:////"
    )
    assert re.match(start, line) and "word" not in line and len(line) < 600
    assert not (tmp_path / "run").exists()
    with pytest.raises(RegistryError, match=r"^MLflow at [^\n]*the same command registers them$"):
        register(Store(tmp_path / "run"), SWEEP, [], [], print)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1", "http://127.0.0.1:99999", "http://", "http://no-such-host.invalid"]
)
def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(RegistryError, match=r"^MLFLOW_TRACKING_URI: MLflow at http://[^\n]*; nothing was begun$"):
        try_registry(Store(tmp_path / "run"), SWEEP)


@pytest.fixture
def refusing(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers everything with one status, as an authenticating proxy or another service does."""

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(b"<html>\n<body>no</body>\n</html>")

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("refusing", [200, 401, 403, 404, 500], indirect=True)
def test_a_server_that_refuses_or_is_no_mlflow_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    monkeypatch.setenv(VARIABLE, refusing)
    with pytest.raises(RegistryError, match=r"^MLFLOW_TRACKING_URI: MLflow at http://[^\n]*; nothing was begun$"):
        try_registry(Store(tmp_path / "run"), SWEEP)


def test_artifacts_that_cannot_be_written_are_found_too(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is open, but what stands beside it is not: here a file is in the way."""
    monkeypatch.setenv(VARIABLE, uri)
    (tmp_path / "mlruns").write_text("in the way")
    with pytest.raises(RegistryError, match=r"^MLFLOW_TRACKING_URI: MLflow at sqlite:///[^\n]*; nothing was begun$"):
        try_registry(Store(tmp_path / "run"), SWEEP)


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """While the context lasts no file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [4096, 3_000_000])  # too little for the database, and for the weights
def test_a_full_disk_is_one_line_and_the_next_start_goes_on(
    tmp_path: Path, database: Callable[[Path], str], most: int
) -> None:
    uri = database(tmp_path / "quick" / "mlflow.db")
    one = Somebody(tmp_path, uri)
    student = one.student("01-a", bytes(4_000_000))
    with full_disk(most), pytest.raises(RegistryError, match=r"^MLflow at sqlite:///[^\n]*$"):
        one.register(student)
    assert Somebody(tmp_path, uri).register(student)[0].new


@pytest.mark.parametrize("content", [b"no database at all\n" * 1000, b"SQLite format 3\0" + bytes(4000)])
def test_a_database_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(RegistryError, match=r"^MLflow at sqlite:///[^\n]*$"):
        Somebody(tmp_path, f"sqlite:///{tmp_path}/mlflow.db").register()


def test_a_database_that_only_others_may_write_is_found_before_training(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the file of another user and umask 077; root may write those, so here it is opened for reading."""
    Somebody(tmp_path, uri).register()
    monkeypatch.setenv(VARIABLE, f"sqlite:///file:{tmp_path}/shared.db?mode=ro&uri=true")
    with pytest.raises(RegistryError, match=r"^MLFLOW_TRACKING_URI: MLflow at sqlite:///[^\n]*; nothing was begun$"):
        try_registry(Store(tmp_path / "quick"), SWEEP)


def test_no_variable_and_a_usable_one_are_tried_without_a_word(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("", uri):
        monkeypatch.setenv(VARIABLE, variable)
        try_registry(Store(tmp_path / "run"), SWEEP)
        assert (tmp_path / "mlruns").exists() == bool(variable) and not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""
