"""Where objects are stored, as text: a path, file:///path or s3://bucket/prefix."""

from __future__ import annotations

from pathlib import Path


def local_folder(place: str) -> Path | None:
    """The folder that a path or a file:// URL names; None for S3. A URL is taken literally: no %20 for a blank."""
    return None if place.startswith("s3://") else Path(place.removeprefix("file://") or "/")
