"""Fronts of points by their definition, slowly: what the fast finder is held to."""

from __future__ import annotations

from collections.abc import Sequence


def peeled(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The front that each point is in, 0 being the best: the front of the points that remain, over and over."""
    numbers, remaining, number = [0] * len(points), set(range(len(points))), 0
    while remaining:
        beaten = {
            i
            for i in remaining
            for j in remaining
            if points[j] != points[i] and all(map(float.__le__, points[j], points[i]))
        }
        for i in remaining - beaten:
            numbers[i] = number
        remaining, number = beaten, number + 1
    return numbers
