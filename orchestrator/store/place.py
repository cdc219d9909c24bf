"""Where objects are stored, as text: a path, file:///path or s3://bucket/prefix."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def local_folder(place: str) -> Path | None:
    """The folder that a path or a file:// URL names; None for S3. A URL is taken literally: no %20 for a blank."""
    return None if place.startswith("s3://") else Path(place.removeprefix("file://") or "/")


def unusable(place: str) -> str | None:
    """Why nothing can be written to a place; None: it can, or it is on S3.

    A file of one byte is written into the nearest folder that is there, and removed: of a mount that is read-only or
    full, or of a file system such as /proc, no permission tells.
    """
    folder = local_folder(place)
    if folder is None:
        return None
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return f"a folder, and {nearest} is none"
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".", suffix=".tmp") as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        return f"a folder that can be written, and {nearest} cannot: {error.strerror or error}"
    return None


def free_bytes(place: str) -> int | None:
    """Bytes that the disk of a place has left; None: it is on S3."""
    folder = local_folder(place)
    return None if folder is None else shutil.disk_usage(_nearest(folder)).free


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
