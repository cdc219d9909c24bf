"""Where MLflow is, and what it raises, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from models.one_line import OneLineError
from orchestrator.results.format import FormatError
from orchestrator.spec.messages import without_credentials
from orchestrator.store.errors import StoreError
from orchestrator.trials.weights import LostWeights

VARIABLE = "MLFLOW_TRACKING_URI"
EXISTS, GONE = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"  # MLflow's codes of errors
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
FEW_RETRIES = "3"  # 14 s of waiting; MLflow's own 7 are 4 minutes
MAX_MESSAGE = 300  # characters of what MLflow says


class RegistryError(OneLineError, RuntimeError):
    """MLflow cannot be used; the message is one line."""


@contextmanager
def reached(tracking_uri: str) -> Iterator[None]:
    """Inside, what MLflow raises becomes RegistryError. Those are not only its own exceptions: drivers of databases,
    clients of S3 and of HTTP raise theirs."""
    try:
        yield
    except (RegistryError, LostWeights, StoreError, FormatError):
        raise
    except Exception as error:
        text = without_credentials(" ".join(str(error).split()))
        shortened = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + " ..."
        raise RegistryError(f"MLflow at {without_credentials(tracking_uri)}: {shortened}") from error
    finally:
        _remove_stray_folders(tracking_uri)


@contextmanager
def little_patience() -> Iterator[None]:
    """Inside, MLflow's client soon gives up a server that fails, unless the environment says how often it tries: for
    what is tried before any work, where a user waits for an answer."""
    if RETRIES in os.environ:
        yield
        return
    os.environ[RETRIES] = FEW_RETRIES
    try:
        yield
    finally:
        del os.environ[RETRIES]


def _remove_stray_folders(tracking_uri: str) -> None:
    """Removes the empty folders that MLflow makes of a SQLite file's quoted URL, which it takes for the file's path."""
    quoted = tracking_uri.removeprefix("sqlite:///")
    if quoted == tracking_uri or unquote(quoted) == quoted:
        return
    with suppress(OSError):  # not empty: it is somebody's
        for folder in Path(quoted).parents:
            folder.rmdir()


class Unless:
    """A context that ends silently where MLflow raises an error of this code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return getattr(error, "error_code", None) == self._code
