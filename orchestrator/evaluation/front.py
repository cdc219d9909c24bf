"""The Pareto front. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=Mapping[str, Any])
AXES = ("bd_rate_pct", "macs_per_pixel")  # lower is better on both


def pareto_front(entries: Iterable[Entry], axes: Sequence[str] = AXES) -> list[Entry]:
    """The entries that no other entry beats: none is at least as low on all axes and lower on one.

    Entries that are equal on all axes stand or fall together.

    Args:
        entries: each with a finite number under every axis.
        axes: keys; lower is better on each.

    Returns:
        The front, cheapest (lowest on the last axis) first.

    Raises:
        ValueError: no axes, or an entry without a finite number on one of them: it has to be left out knowingly.
    """
    if not axes:
        raise ValueError("a front needs at least one axis")
    placed = [(_place(entry, axes), entry) for entry in entries]
    front = [(place, entry) for place, entry in placed if not any(_beats(other, place) for other, _ in placed)]
    return [entry for _, entry in sorted(front, key=lambda each: each[0][::-1])]


def _place(entry: Mapping[str, Any], axes: Sequence[str]) -> tuple[float, ...]:
    for axis in axes:
        value = entry.get(axis)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{entry.get('trial_id', 'an entry')} has no finite {axis}: {value!r}")
    return tuple(float(entry[axis]) for axis in axes)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
