"""The order of points by non-dominated rank, points of one front spread by an epsilon-net (pure).

As MOASHA sorts: Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021, arXiv 2106.12639, and Syne
Tune, which implements it. The epsilon-net is the greedy one of Clarkson, "Nearest-Neighbor Searching and Metric Space
Dimensions", 2005: the next point is the one farthest from all points before it. Ours differs in two ways, so that it
is repeatable and free of units: it begins with the lowest value, and each axis is scaled by its range in the front.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

Point = tuple[float, float]  # lower is better on both axes


def fronts(points: Sequence[Point]) -> list[int]:
    """The front that each point is in, 0 being the Pareto front; the points of a front are dominated by one of the
    front before. Equal points share a front. Takes n log n steps.
    """
    found = [0] * len(points)
    lowest: list[float] = []  # of each front, on the first axis: never falling from front to front
    before: Point | None = None
    front = 0
    for y, x, index in sorted((y, x, index) for index, (x, y) in enumerate(points)):
        if (x, y) != before:
            # the points so far are no higher on the second axis: a front's lowest is the one that may dominate
            front, before = bisect_right(lowest, x), (x, y)
            if front == len(lowest):
                lowest.append(x)
            lowest[front] = x
        found[index] = front
    return found


def place_of_last(points: Sequence[Point]) -> int:
    """The last point's place among all, from 1: whole fronts first, within its own by the epsilon-net."""
    found = fronts(points)
    ahead = sum(front < found[-1] for front in found)
    return ahead + _net_place([point for point, front in zip(points, found, strict=True) if front == found[-1]])


def _net_place(points: Sequence[Point]) -> int:
    """The last point's place in the epsilon-net's order, from 1; of equally far points the earlier is ahead."""
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*points, strict=True)]
    scaled = [(x / spans[0], y / spans[1]) for x, y in points]
    chosen = min(range(len(points)), key=points.__getitem__)
    distances, place = [float("inf")] * len(points), 1  # squared, to the nearest of the chosen
    while chosen != len(points) - 1:
        x, y = scaled[chosen]
        distances = [min(far, (a - x) ** 2 + (b - y) ** 2) for far, (a, b) in zip(distances, scaled, strict=True)]
        distances[chosen] = -1.0  # behind a point equal to a chosen one
        chosen, place = max(range(len(points)), key=distances.__getitem__), place + 1
    return place
