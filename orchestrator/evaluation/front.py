"""Pareto fronts: which points no other point dominates, and the fronts behind the first (pure).

The sort is the efficient one of Zhang et al., "An Efficient Approach to Nondominated Sorting for Evolutionary
Multiobjective Optimization", IEEE Transactions on Evolutionary Computation 19(2), 2015 (ENS-BS).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

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
    readers: dict[str, Callable[[Placed], float | None]] = {cost: attrgetter(cost) for cost in costs}
    return {"bd_rate_pct": AXES["bd_rate_pct"], **readers}


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

    Takes n log n steps for n points on two axes; on more, n^2 at worst.
    """
    points = [tuple(plain_real(value) for value in point) for point in points]
    numbers = [0] * len(points)
    # a point comes after all that may dominate it, and is compared with the fronts of those alone
    order = sorted(range(len(points)), key=lambda index: points[index][::-1])
    sort = _sort_on_two_axes if all(len(point) == 2 for point in points) else _sort_on_any_axes
    for index, number in zip(order, sort([points[index] for index in order]), strict=True):
        numbers[index] = number
    return numbers


def _sort_on_two_axes(ordered: Sequence[Point]) -> Iterator[int]:
    """The front of each point. Points are sorted by the second axis, so of a front only the lowest on the first axis
    may dominate the next point."""
    lowest: list[float] = []  # of each front, on the first axis: never falls from front to front
    number, before = 0, None
    for point in ordered:
        if point != before:
            number, before = bisect_right(lowest, point[0]), point
            lowest[number : number + 1] = [point[0]]
        yield number


def _sort_on_any_axes(ordered: Sequence[Point]) -> Iterator[int]:
    """The front of each point. What one front dominates, all fronts before it dominate too: a binary search works."""
    members: list[list[Point]] = []  # of each front

    for point in ordered:
        number = _first_without_dominator(members, point)
        if number == len(members):
            members.append([])
        members[number].append(point)
        yield number


def _first_without_dominator(members: Sequence[Sequence[Point]], point: Point) -> int:
    """The first front that holds nothing that dominates the point."""
    return bisect_left(members, True, key=lambda front: not any(_dominates(member, point) for member in front))


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


def _dominates(candidate: Point, point: Point) -> bool:
    """Whether the candidate is at least as low as the point on all axes, and lower on one."""
    pairs = zip(candidate, point, strict=True)
    return candidate != point and all(candidate_value <= value for candidate_value, value in pairs)
