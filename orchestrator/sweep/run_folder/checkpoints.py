"""Checkpoints in the run folder: published file by file, verified when they are read.

A checkpoint counts from the moment that its trial's JSON names it, with the SHA-256 of every file. Each file is written
under a temporary name and renamed, so one that was cut off is in no JSON, and the trial's next one deletes it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.store.store import Store
from orchestrator.trials.record import Checkpoint


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is not the one that was; one line."""


def written(write: Callable[[Path], None], store: Store) -> dict[str, str]:
    """Have a checkpoint written into a temporary folder, and publish what is there.

    Args:
        write: writes this rank's files into an empty folder.
        store: where they go.

    Returns:
        Name -> SHA-256 of this rank's files.

    Raises:
        CheckpointError: a disk is full, or the store cannot be used.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with _named(f"checkpoint {store.url}: {temporary} cannot be written", folder):
            write(folder)
        digests = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            with _named(f"checkpoint {store.url} cannot be published", store.folder):
                store.replace(name, data)
            digests[name] = hashlib.sha256(data).hexdigest()
        return digests


@contextmanager
def fetched(run: Store, point: Checkpoint) -> Iterator[Path]:
    """A folder with the checkpoint's files, while the context lasts.

    Raises:
        CheckpointError: a file is missing, or is not the one that was written.
    """
    store = run / point.path
    with tempfile.TemporaryDirectory() as folder:
        for name, digest in point.files.items():
            try:
                data = store.read(name)
            except FileNotFoundError:
                raise CheckpointError(f"checkpoint {store.url}/{name} is gone; {_ANEW}") from None
            if hashlib.sha256(data).hexdigest() != digest:
                raise CheckpointError(f"checkpoint {store.url}/{name} is damaged: not the recorded SHA-256; {_ANEW}")
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield Path(folder)


_ANEW = "without its file in trials/ the trial begins anew"


@contextmanager
def _named(what: str, folder: Path | None) -> Iterator[None]:
    """torch.save tells of a full disk by a RuntimeError that names neither the disk nor the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if folder is not None:
            there = next(above for above in (folder, *folder.parents) if above.is_dir())
            what += f" ({shutil.disk_usage(there).free / 1e6:,.1f} MB free)"
        raise CheckpointError(f"{what}: {next(iter(str(error).splitlines()), '')}") from error
