"""Checkpoints in the run folder: published file by file, verified when they are read.

A checkpoint counts once its trial's JSON file names it, with the SHA-256 of every file. A checkpoint whose writing was
interrupted is named nowhere, and is deleted after the trial's next one.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.one_line import OneLineError
from orchestrator.store.store import Store
from orchestrator.trials.record import Checkpoint


class CheckpointError(OneLineError, RuntimeError):
    """A checkpoint could not be written, is gone or is damaged; one line."""


def write_checkpoint(write: Callable[[Path], None], store: Store) -> dict[str, str]:
    """Write a checkpoint into a temporary folder, then publish its files.

    Args:
        write: writes this rank's files into an empty folder.
        store: the checkpoint's folder in the run folder.

    Returns:
        Name -> SHA-256 of this rank's files.

    Raises:
        CheckpointError: the disk is full, or the store cannot be used.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with _errors_as(f"checkpoint {store.url}: {temporary} cannot be written", folder):
            write(folder)
        digests = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            with _errors_as(f"checkpoint {store.url} cannot be published", store.folder):
                store.replace(name, data)
            digests[name] = hashlib.sha256(data).hexdigest()
        return digests


@contextmanager
def fetched(run: Store, checkpoint: Checkpoint) -> Iterator[Path]:
    """A temporary folder with the checkpoint's files, while the context lasts.

    Args:
        run: the run folder.
        checkpoint: as the trial's file names it.

    Raises:
        CheckpointError: a file is gone, or has another SHA-256.
    """
    store = run / checkpoint.path
    with tempfile.TemporaryDirectory() as folder:
        for name, digest in checkpoint.files.items():
            try:
                data = store.read(name)
            except FileNotFoundError:
                raise CheckpointError(f"checkpoint {store.url}/{name} is gone; {_ADVICE}") from None
            if hashlib.sha256(data).hexdigest() != digest:
                raise CheckpointError(f"checkpoint {store.url}/{name} is damaged: not the recorded SHA-256; {_ADVICE}")
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield Path(folder)


_ADVICE = "without its file in trials/ the trial begins anew"


@contextmanager
def _errors_as(what: str, folder: Path | None) -> Iterator[None]:
    """Raise CheckpointError in place of other errors, with the free space of the folder's disk: torch.save reports a
    full disk as a RuntimeError that names neither disk nor file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if folder is not None:
            existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
            what += f" ({shutil.disk_usage(existing).free / 1e6:,.1f} MB free)"
        raise CheckpointError(f"{what}: {next(iter(str(error).splitlines()), '')}") from error
