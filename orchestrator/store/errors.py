"""What a store raises, and an object as a store returns it."""

from __future__ import annotations

from dataclasses import dataclass

from models.one_line import OneLineError


class StoreError(OneLineError, RuntimeError):
    """The store cannot be used: unreachable, refused, no such bucket. One line, without credentials."""


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """An object, its tag and its age, read together."""

    data: bytes
    tag: str  # identifies this version of the object for `replace_if`
    age_s: float  # seconds since it was written, by the store's clock unless the store is open for reading only


@dataclass(frozen=True, slots=True)
class Version:
    """An object as a listing names it."""

    bytes: int
    stamp: str  # another one when the object was written again: S3's ETag, the time of a file's last change
