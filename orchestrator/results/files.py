"""Reads and writes the typed files of a run folder."""

from __future__ import annotations

from orchestrator.results.format import File, ResultFile, parse, serialised
from orchestrator.store.store import Store


def read_file(store: Store, name: str, model: type[File]) -> File | None:
    """A file's content; None if there is no such file.

    Raises:
        FormatError: the file is of another format, or damaged.
        StoreError: the store cannot be used.
    """
    try:
        return needed(store, name, model)
    except FileNotFoundError:
        return None


def needed(store: Store, name: str, model: type[File]) -> File:
    """As `read_file`, for a file that every finished sweep has. Raises FileNotFoundError if it is missing."""
    try:
        data = store.read(name)
    except FileNotFoundError:
        raise FileNotFoundError(f"{store.url}/{name} is missing: every finished sweep has it") from None
    return parse(data, model, f"{store.url}/{name}")


def write_file(store: Store, name: str, value: ResultFile) -> None:
    """Replaces the file atomically. Raises StoreError, and ValueError for what JSON does not have, such as NaN."""
    store.replace(name, serialised(value))
