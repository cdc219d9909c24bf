"""Fixtures that more than one test module uses."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.survey import survey
from testing.servers import FaultProxy, SeaweedFS

# What starts servers, Ray, Slurm, hosts or process groups: a test that has one of them is not among `make test-fast`.
SLOW_FIXTURES = {"hosts", "local_ray", "process_group", "s3_server", "seaweed", "slurm"}
QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"

# Workers share the processors out. Threads of several torch processes on the same cores wait for each other at every
# operation: on 2 cores two workers with 2 threads each take many times as long. torch reads it when it is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))

# A shell lets what it starts in the background ignore SIGINT, and children inherit that; some tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Properties (tests/properties): few examples and always the same ones in the suite, many new ones by
# `--hypothesis-profile=long`, which keeps those that failed in .hypothesis. No deadlines: a loaded machine is no fault.
settings.register_profile("long", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("suite", settings.get_profile("long"), max_examples=25, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what has a slow fixture or is on S3; modules that start processes by hand say so themselves."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        on_s3 = any(isinstance(parameter, str) and parameter == "s3" for parameter in parameters)
        if on_s3 or SLOW_FIXTURES.intersection(fixtures):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def train_photographs() -> tuple[Photograph, ...]:
    return tuple(survey(QUICKSTART / "train", minimum_side=128).photographs)


@pytest.fixture(scope="session")
def validation_photographs() -> tuple[Photograph, ...]:
    return tuple(survey(QUICKSTART / "validation", minimum_side=256).photographs)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedFS]:
    """A real S3 server on free loopback ports with a bucket, for tests that leave it running; killed at the end."""
    with _folder() as folder, SeaweedFS(folder) as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables that reach the server, set for the test and returned for its child processes."""
    variables = s3_server.environment
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def seaweed() -> Iterator[Callable[[], SeaweedFS]]:
    """Makes S3 servers (2 s each) for tests that kill or pause theirs."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SeaweedFS(stack.enter_context(_folder())))


@pytest.fixture(scope="session")
def session_proxy(s3_server: SeaweedFS) -> Iterator[FaultProxy]:
    with _folder() as folder, FaultProxy(s3_server.endpoint, folder) as proxy:
        yield proxy


@pytest.fixture
def fault_proxy(
    session_proxy: FaultProxy, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy before `s3_server`, transparent until told otherwise; the environment leads through it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", session_proxy.endpoint)
    s3_environment["AWS_ENDPOINT_URL"] = session_proxy.endpoint  # child processes of the test go through it as well
    session_proxy.forget()
    yield session_proxy
    session_proxy.behave()
    session_proxy.forget()


@contextmanager
def _folder() -> Iterator[Path]:
    """Not pytest's own, of which the last three are kept: a server's data are large."""
    folder = Path(tempfile.mkdtemp(prefix="server-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
