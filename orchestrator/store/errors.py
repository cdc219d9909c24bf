"""What a store raises, and what it returns of an object beside its bytes."""

from __future__ import annotations

from dataclasses import dataclass


class StoreError(RuntimeError):
    """The store cannot be used: unreachable, refused, no such bucket. One line, without credentials."""


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """An object as it was at one moment."""

    data: bytes
    tag: str  # what `replace_if` compares
    age_s: float  # since it was written, by the store's own clock unless it is open for reading only
