"""A run folder that was moved or copied: MLflow's database has absolute addresses of artifacts, which are set right."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

ARTIFACTS = "mlartifacts"  # beside the database
SQLITE = "sqlite:///"


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
    database = Path(unquote(tracking_uri.removeprefix(SQLITE)))
    if not (tracking_uri.startswith(SQLITE) and database.is_file() and (database.parent / ARTIFACTS).is_dir()):
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
