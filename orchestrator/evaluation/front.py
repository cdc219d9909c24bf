"""Pareto fronts: which points no other dominates, the fronts behind the first, and how much one dominates (pure)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

import moocore
import numpy as np

from models.plain_number import plain_real, shown

Point = tuple[float, ...]  # lower is better on every axis


class Placed(Protocol):
    """A trial with its place on the front's two axes; a BD-rate of None is not valid."""

    @property
    def trial_id(self) -> str: ...
    @property
    def bd_rate_pct(self) -> float | None: ...
    @property
    def macs_per_pixel(self) -> float: ...


T = TypeVar("T")
Entry = TypeVar("Entry", bound=Placed)
AXES: Mapping[str, Callable[[Placed], float | None]] = {
    "bd_rate_pct": lambda entry: entry.bd_rate_pct,
    "macs_per_pixel": lambda entry: entry.macs_per_pixel,
}


def axes_of(costs: Sequence[str]) -> dict[str, Callable[[Placed], float | None]]:
    """The axes of a front of BD-rate and some costs, which are attributes of its entries."""
    return {"bd_rate_pct": AXES["bd_rate_pct"], **cost_axes(costs)}


def cost_axes(costs: Sequence[str]) -> dict[str, Callable[[Placed], float | None]]:
    """The axes of costs alone."""
    return {cost: attrgetter(cost) for cost in costs}


def pareto_front(entries: Iterable[Entry], axes: Mapping[str, Callable[[Entry], float | None]] = AXES) -> list[Entry]:
    """The entries that no other entry dominates: none is at least as low on all axes and lower on one.

    Entries that are equal on all axes are either all on the front or all off it.

    Args:
        entries: each with a finite number on every axis.
        axes: name -> what it reads of an entry; lower is better on each.

    Returns:
        The front, cheapest (lowest on the last axis) first.

    Raises:
        ValueError: no axes, or an entry without a finite number on one of them: the caller must leave such entries out.
    """
    if not axes:
        raise ValueError("a front needs at least one axis")
    entries = list(entries)
    points = [_place(entry, axes) for entry in entries]
    front = [(point, entry) for point, entry, number in zip(points, entries, fronts(points), strict=True) if not number]
    return [entry for _, entry in sorted(front, key=lambda placed: placed[0][::-1])]


def spread(front: Sequence[T], most: int) -> list[T]:
    """At most so many entries of a sequence, evenly spread over it, with both its ends."""
    if len(front) <= most:
        return list(front)
    return [front[round(place * (len(front) - 1) / max(1, most - 1))] for place in range(most)]


def fronts(points: Sequence[Point]) -> list[int]:
    """The number of each point's front: 0 is the Pareto front, and a point of any other is dominated by one of the
    front before. Equal points share a front.

    By moocore: n log n steps for n points on two axes (Jensen 2003); on more, one front after the other.
    """
    if not points:
        return []
    rows = np.array([[plain_real(value) for value in point] for point in points], dtype=np.float64)
    return [int(number) for number in moocore.pareto_rank(rows)]


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """What the points dominate of all that is better than the reference on every axis; dominated ones add nothing."""
    inside = [point for point in points if all(value < worst for value, worst in zip(point, reference, strict=True))]
    return float(moocore.hypervolume(np.array(inside), ref=reference)) if inside else 0.0


def _place(entry: Entry, axes: Mapping[str, Callable[[Entry], float | None]]) -> Point:
    point = []
    for name, read in axes.items():
        value = read(entry)
        try:
            number = plain_real(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{entry.trial_id} has no finite {name}: {shown(value)}")
        point.append(number)
    return tuple(point)
