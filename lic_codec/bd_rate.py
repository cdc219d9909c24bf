"""BD-rate: how many percent more bits a codec needs than an anchor for the same quality (lower is better). Pure.

Bjøntegaard, VCEG-M33 (2001); with piecewise cubic (pchip) interpolation of log10(rate) over PSNR, by the `bjontegaard`
package (https://github.com/FAU-LMS/bjontegaard). The cubic fit of the first publications is not offered: a curve
that is not monotonic gave -88 % with it, without a warning. A curve that cannot be compared gives an `InvalidCurve`
with a reason, never a NaN.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lic_codec.errors import missing

Point = tuple[float, float]  # (bits per pixel, quality in dB: PSNR, or MS-SSIM as -10 log10(1 - MS-SSIM))
Reason = Literal[
    "too-few-points", "not-finite", "rate-not-positive", "quality-not-rising", "no-overlap", "little-overlap", "package"
]
MINIMUM_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class BDRate:
    """A valid comparison."""

    pct: float  # rate of the test curve over the anchor's at equal PSNR, minus 1, in percent; lower is better
    overlap: float  # share of the test curve's own range of quality that lies inside the anchor's, 0..1
    interval_db: tuple[float, float]  # the range of quality that was compared


@dataclass(frozen=True, kw_only=True)
class InvalidCurve:
    """No comparison, and why."""

    reason: Reason
    detail: str  # one line

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def bd_rate(
    anchor: Sequence[Point],
    test: Sequence[Point],
    *,
    method: Literal["pchip", "akima"] = "pchip",
    minimum_overlap: float = 0.5,
) -> BDRate | InvalidCurve:
    """The average rate difference of `test` against `anchor`.

    Args:
        anchor, test: (bpp, quality in dB) points in any order; each curve needs at least four, with quality strictly
            rising over the rate.
        method: interpolation; results are ranked with pchip.
        minimum_overlap: share of the test curve's own range of quality that must lie inside the anchor's. It is not the
            package's intersection over union, by which a good curve against a long anchor counts as a bad one. 0.5
            is enough for early stopping; use 0.75 for figures to publish.

    Raises:
        ValueError: an unknown method, or `minimum_overlap` outside 0..1.
        CodecError: the package `bjontegaard` is not installed.
    """
    if method not in ("pchip", "akima"):
        raise ValueError(f"method {method!r} is not pchip or akima")
    if not 0 <= minimum_overlap <= 1:
        raise ValueError(f"minimum_overlap {minimum_overlap} is not in 0..1")
    needs_bjontegaard()
    for name, curve in (("anchor", anchor), ("test", test)):
        invalid = invalid_curve(name, curve)
        if invalid:
            return invalid
    anchor_points, test_points = sorted(anchor), sorted(test)
    low, high = max(anchor_points[0][1], test_points[0][1]), min(anchor_points[-1][1], test_points[-1][1])
    ranges = f"anchor {_range(anchor_points)}, test {_range(test_points)}"
    if low >= high:
        return InvalidCurve(reason="no-overlap", detail=ranges)
    overlap = (high - low) / (test_points[-1][1] - test_points[0][1])
    if overlap < minimum_overlap:
        shares = f"{overlap:.2f} of the test curve is compared, {minimum_overlap} wanted"
        return InvalidCurve(reason="little-overlap", detail=f"{shares}; {ranges}")
    from bjontegaard import bd_rate as package_bd_rate

    try:
        with warnings.catch_warnings():
            for category in (UserWarning, RuntimeWarning):  # the package warns of input that it should refuse
                warnings.simplefilter("error", category)
            pct = float(
                package_bd_rate(
                    *_axes(anchor_points),
                    *_axes(test_points),
                    method=method,
                    require_matching_points=False,
                    interpolators=False,
                    min_overlap=0,
                )
            )
    except Exception as error:  # whatever the package raises, the curve is invalid for that reason
        return InvalidCurve(reason="package", detail=f"{type(error).__name__}: {' '.join(str(error).split())}")
    if not math.isfinite(pct):
        return InvalidCurve(reason="package", detail=f"the interpolation gave {pct}")
    return BDRate(pct=pct, overlap=overlap, interval_db=(low, high))


def needs_bjontegaard() -> None:
    """Raises CodecError: the package `bjontegaard` is not installed."""
    try:
        import bjontegaard  # noqa: F401
    except ImportError:
        raise missing("bjontegaard", "a BD-rate") from None


def _range(curve: Sequence[Point]) -> str:
    return f"{curve[0][1]:.2f} to {curve[-1][1]:.2f} dB"


def _axes(curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in curve], [psnr for _, psnr in curve]


def invalid_curve(name: str, curve: Sequence[Point]) -> InvalidCurve | None:
    """Why no BD-rate can be taken of a curve, which `name` names in the detail; None: one can."""
    if len(curve) < MINIMUM_POINTS:
        return InvalidCurve(reason="too-few-points", detail=f"{name}: {len(curve)} points, {MINIMUM_POINTS} needed")
    for rate, psnr in curve:
        if not (math.isfinite(rate) and math.isfinite(psnr)):
            return InvalidCurve(reason="not-finite", detail=f"{name}: {rate} bpp, {psnr} dB")
        if rate <= 0:
            return InvalidCurve(reason="rate-not-positive", detail=f"{name}: {rate} bpp")
    ordered = sorted(curve)
    for (rate_a, psnr_a), (rate_b, psnr_b) in pairwise(ordered):
        if psnr_b <= psnr_a or rate_b <= rate_a:
            detail = f"{name}: {psnr_a:.3f} dB at {rate_a:.4f} bpp, then {psnr_b:.3f} dB at {rate_b:.4f} bpp"
            return InvalidCurve(reason="quality-not-rising", detail=detail)
    return None
