"""Orders points by non-dominated rank, and the points of one front by an epsilon-net (pure).

As MOASHA sorts: Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021, arXiv 2106.12639, and Syne
Tune, which implements it. The epsilon-net is the greedy one of Clarkson, "Nearest-Neighbor Searching and Metric Space
Dimensions", 2005: the next point is the one farthest from all points before it. Ours differs in two ways: it begins
with the lowest value, so that it is repeatable, and each axis is scaled by its range in the front, so that it has no
units.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.evaluation.front import fronts

Point = tuple[float, float]  # lower is better on both axes


def place_of_last(points: Sequence[Point]) -> int:
    """The last point's place among all points, from 1: by its front, then by the epsilon-net within the front."""
    numbers = fronts(points)
    ahead = sum(number < numbers[-1] for number in numbers)
    return ahead + _net_place([point for point, number in zip(points, numbers, strict=True) if number == numbers[-1]])


def _net_place(points: Sequence[Point]) -> int:
    """The last point's place in the epsilon-net's order, from 1; of equally far points the earlier comes first."""
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*points, strict=True)]
    scaled = [(x / spans[0], y / spans[1]) for x, y in points]
    chosen = min(range(len(points)), key=points.__getitem__)
    distances, place = [float("inf")] * len(points), 1  # squared, to the nearest of the chosen
    while chosen != len(points) - 1:
        x, y = scaled[chosen]
        distances = [min(far, (a - x) ** 2 + (b - y) ** 2) for far, (a, b) in zip(distances, scaled, strict=True)]
        distances[chosen] = -1.0  # after a point equal to a chosen one
        chosen, place = max(range(len(points)), key=distances.__getitem__), place + 1
    return place
