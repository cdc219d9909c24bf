"""Photographs: what identifies one, where it is, and its pixels.

A photograph is identified by the digest of its decoded pixels, so renaming or losslessly re-encoding a file changes
nothing downstream, and one picture in two folders is recognised. It is a file, an object on S3, or a member of a tar,
whose place in the tar is known: it is read without looking through the tar.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lic_codec.photographs import digest
from models.one_line import one_line
from orchestrator.photographs.picture import Pixels, Unfit, decode
from orchestrator.store.store import Store


class PhotographError(ValueError):
    """Photographs that cannot be used: one line `path: reason` each."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    path: str  # absolute, or s3://BUCKET/KEY; of a member of a tar TAR/MEMBER
    digest: str  # sha256 hex of its shape and its decoded, upright RGB bytes
    width: int  # pixels, upright
    height: int
    tar: str | None = None  # that it is in, absolute or s3://BUCKET/KEY
    offset: int = 0  # bytes, of the member's data in the tar
    size: int = 0  # bytes, of the member's data


def load_rgb(photograph: Photograph) -> Pixels:
    """Pixels, uint8 [H, W, 3], upright. Raises PhotographError if the file has changed since it was surveyed."""
    try:
        rgb = decode(_read(photograph), minimum_side=1)
    except Exception as error:
        raise PhotographError(one_line(f"{photograph.path}: {named(error)}")) from error
    if isinstance(rgb, Unfit):
        raise PhotographError(one_line(f"{photograph.path}: {rgb.reason}"))
    if digest(rgb) != photograph.digest:
        raise PhotographError(one_line(f"{photograph.path}: its pixels changed since the photographs were surveyed"))
    return rgb


def in_store(place: str) -> tuple[Store, str]:
    """A file's folder, or an object's bucket, as a store; and the name there."""
    if place.startswith("s3://"):
        bucket, _, key = place.removeprefix("s3://").partition("/")
        return Store(f"s3://{bucket}"), key
    return Store(f"file://{Path(place).parent}"), Path(place).name


def named(error: BaseException) -> str:
    """An error with its type, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _read(photograph: Photograph) -> bytes:
    if photograph.tar is not None:
        store, name = in_store(photograph.tar)
        return store.read_range(name, photograph.offset, photograph.size)
    if photograph.path.startswith("s3://"):
        store, name = in_store(photograph.path)
        return store.read(name)
    return Path(photograph.path).read_bytes()
