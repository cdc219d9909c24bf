"""BD-rate of curves of any library's numbers, by `lic_codec.bd_rate`; and a rank for curves that have none. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from lic_codec import bd_rate as of_floats
from lic_codec.bd_rate import BDRate, InvalidCurve, Point
from models.plain_number import Numeric, plain_real, shown

__all__ = ["AnyCurve", "BDRate", "InvalidCurve", "Point", "bd_rate", "log_lagrangian_ratio", "plain_curve"]
AnyCurve = Iterable[Iterable[Numeric]]  # points, whatever library's numbers; an array of two columns is one as well


def bd_rate(
    anchor: AnyCurve,
    test: AnyCurve,
    *,
    method: Literal["pchip", "akima"] = "pchip",
    minimum_overlap: float = 0.5,
) -> BDRate | InvalidCurve:
    """The average rate difference of `test` against `anchor`; see `lic_codec.bd_rate.bd_rate`.

    Args:
        anchor, test: (bpp, quality in dB) points in any order. Numbers may be those of any library, and a curve an
            array of two columns.
        method: interpolation; results are ranked with pchip.
        minimum_overlap: share of the test curve's own range of quality that must lie inside the anchor's.

    Raises:
        ValueError: an unknown method, `minimum_overlap` outside 0..1, or a point that is not a pair of numbers.
    """
    anchor_points, test_points = plain_curve("anchor", anchor), plain_curve("test", test)
    return of_floats.bd_rate(anchor_points, test_points, method=method, minimum_overlap=minimum_overlap)


def log_lagrangian_ratio(anchor: AnyCurve, test: AnyCurve, lambdas: Iterable[Numeric]) -> float:
    """A rank for curves that BD-rate cannot compare yet: the mean over rate points of ln(J_test / J_anchor); lower is
    better.

    J = bpp + lambda * distortion. Point i of both curves is the one of `lambdas[i]`, not the best one of the curve.

    Args:
        anchor, test: (bpp, distortion) of each rate point, see `metric.Metric.cost`.
        lambdas: the trade-off of each rate point.

    Raises:
        ValueError: lengths differ or are 0, a J is not positive and finite, or something is not a number.
    """
    anchor_points, test_points = plain_curve("anchor", anchor), plain_curve("test", test)
    weights = [plain_real(lmbda) for lmbda in lambdas]
    if not weights or not len(anchor_points) == len(test_points) == len(weights):
        raise ValueError(
            f"{len(anchor_points)} anchor points, {len(test_points)} test points, {len(weights)} lambdas: "
            "they must be equally many"
        )

    def log_cost(point: Point, lmbda: float) -> float:
        cost = point[0] + lmbda * point[1]
        if not (math.isfinite(cost) and cost > 0):
            raise ValueError(f"bpp {point[0]}, distortion {point[1]} at lambda {lmbda} have no positive finite cost")
        return math.log(cost)

    ratios = [
        log_cost(tested, lmbda) - log_cost(anchored, lmbda)
        for anchored, tested, lmbda in zip(anchor_points, test_points, weights, strict=True)
    ]
    return math.fsum(ratios) / len(ratios)


def plain_curve(name: str, curve: AnyCurve) -> list[Point]:
    """The points as pairs of Python's floats. Raises ValueError with one line that has the curve's name."""
    points = []
    for point in curve:
        try:
            rate, quality = point
            points.append((plain_real(rate), plain_real(quality)))
        except (ValueError, TypeError):
            raise ValueError(f"{name}: {shown(point)} is not a pair of numbers") from None
    return points
