"""The hypervolume of a front of BD-rate in percent and ln MACs per pixel, lower is better on both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from orchestrator.evaluation import front as fronts

Point = tuple[float, float]  # BD-rate in percent, MACs per pixel


def reference(front: Sequence[Point]) -> Point:
    """The worst of a front, a tenth of its size worse: BD-rate in percent, ln MACs per pixel."""
    rate, cost = max(rate for rate, _ in front), max(math.log(macs) for _, macs in front)
    return rate + 0.1 * abs(rate), cost + 0.1 * abs(cost)


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """What the points dominate of all that is better than the reference; dominated ones among them add nothing."""
    return fronts.hypervolume([(rate, math.log(macs)) for rate, macs in points], reference)
