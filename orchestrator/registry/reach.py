"""Where MLflow is, and what it raises, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from orchestrator.spec.messages import without_credentials
from orchestrator.store.errors import StoreError
from orchestrator.trials.weights import LostWeights

VARIABLE = "MLFLOW_TRACKING_URI"
EXISTS, GONE = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"  # MLflow's codes of errors
MAX_MESSAGE = 300  # characters of what MLflow says


class RegistryError(RuntimeError):
    """MLflow cannot be used; the message is one line."""


def database_url(file: Path) -> str:
    """What MLflow calls a SQLite file. Quoted, since SQLAlchemy decodes %20 and the like in it."""
    return f"sqlite:///{quote(str(file))}"


@contextmanager
def reached(tracking_uri: str) -> Iterator[None]:
    """Inside, what MLflow raises becomes RegistryError. Those are not only its own exceptions: drivers of databases,
    clients of S3 and of HTTP raise theirs."""
    try:
        yield
    except (RegistryError, LostWeights, StoreError):
        raise
    except Exception as error:
        text = without_credentials(" ".join(str(error).split()))
        shortened = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + " ..."
        raise RegistryError(f"MLflow at {without_credentials(tracking_uri)}: {shortened}") from error


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
