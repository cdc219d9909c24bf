"""MLflow's database as a SQLite file: it is made whole or not at all, and is set right where its folder was moved."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from orchestrator.store.store import Store

ARTIFACTS = "mlartifacts"  # beside the database
SQLITE = "sqlite:///"


def database_url(file: Path) -> str:
    """What MLflow calls a SQLite file. Quoted, since SQLAlchemy decodes %20 and the like in it, and ends it at a ?."""
    return f"{SQLITE}{quote(str(file))}"


def create(tracking_uri: str) -> None:
    """Makes MLflow's tables in a SQLite file that is not there yet, in a folder that is.

    MLflow makes them in some sixty steps. A process that is killed in between leaves a file that no later start can
    use; so the file is made elsewhere and put in place whole.

    Args:
        tracking_uri: of MLflow; whatever is no path of a SQLite file is left to MLflow.

    Raises:
        StoreError: the file cannot be written.
    """
    database = _file(tracking_uri)
    if database is None or database.exists() or not database.parent.is_dir():
        return
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        made = Path(folder, database.name)
        MlflowClient(database_url(made), database_url(made)).search_experiments()
        Store(database.parent).publish(database.name, made.read_bytes())


def _file(tracking_uri: str) -> Path | None:
    """The SQLite file that MLflow is told of; None: another kind of MLflow, no file, or an address with options."""
    path = unquote(tracking_uri.removeprefix(SQLITE))
    if not tracking_uri.startswith(SQLITE) or "?" in tracking_uri or path in ("", ":memory:"):
        return None
    return Path(path)


def artifacts_of(database: Path) -> str:
    """Where the artifacts of a run folder's own database are, as MLflow writes it."""
    return (database.parent / ARTIFACTS).as_uri()


def settle(tracking_uri: str) -> None:
    """Sets the addresses in a run folder's own database right, if it does not lie where it was made.

    Only those of sweeps, in a folder called mlartifacts. Where all is right, nothing is written.

    Args:
        tracking_uri: of MLflow; one that is no SQLite file with mlartifacts beside it is left alone.

    Raises:
        sqlite3.Error: no database, or one that cannot be written.
    """
    database = _file(tracking_uri)
    if database is None or not (database.is_file() and (database.parent / ARTIFACTS).is_dir()):
        return
    now = artifacts_of(database.absolute())
    with closing(sqlite3.connect(database)) as connection, connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return  # MLflow has made no tables yet
        found = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments JOIN experiment_tags USING (experiment_id)"
            " WHERE key = 'sweep' AND artifact_location LIKE ? AND artifact_location != ?",
            (f"%/{ARTIFACTS}", now),
        )
        for number, before in found.fetchall():
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, number))
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (now, len(before) + 1, number, len(before) + 1, f"{before}/"),
            )
