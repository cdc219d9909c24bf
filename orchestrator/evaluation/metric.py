"""How the distortion of an image is measured: pure, and without torch.

A ladder's lambdas weigh one of two distortions, in CompressAI's units: 255^2 * MSE of values in 0..1, or 1 - MS-SSIM.
Its curves are drawn over that distortion's quality in dB: PSNR, or MS-SSIM as -10 log10(1 - MS-SSIM), of the mean
MS-SSIM over photographs (as CompressAI plots it), while PSNR is the mean of the photographs' own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from models.families import Distortion

HIGHEST_DB = 100.0  # what an exact copy counts as, so that every figure is finite


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a rate-distortion curve: means over images. Not finite where training diverged."""

    rate_point: int | float  # index of the rate point, or a gain between two of them
    bpp: float  # bits per pixel
    psnr_db: float
    mse: float  # of 8-bit values, in 0..1
    ms_ssim: float | None = None  # None: not measured
    lmbda: float | None = None  # of the rate point; None: unknown

    @property
    def ms_ssim_db(self) -> float | None:
        """MS-SSIM in dB, at most 100; None: not measured."""
        return None if self.ms_ssim is None else ms_ssim_db(self.ms_ssim)

    @property
    def finite(self) -> bool:
        """Whether all that was measured is finite."""
        return all(math.isfinite(value) for value in asdict(self).values() if value is not None)

    def to_json(self) -> dict[str, float]:
        """What was measured, with MS-SSIM also in dB."""
        values = asdict(self) | {"ms_ssim_db": self.ms_ssim_db}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> CurvePoint:
        """The point that `to_json` wrote. Raises TypeError for other fields."""
        return cls(**{name: value for name, value in values.items() if name != "ms_ssim_db"})


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How the points of a ladder's curve are read, by the distortion that it was trained for."""

    label: str  # of the quality
    distortion: Distortion

    def pair(self, point: CurvePoint) -> tuple[float, float]:
        """(bits per pixel, quality in dB), which BD-rates compare. Raises ValueError if MS-SSIM was not measured."""
        return point.bpp, point.psnr_db if self.distortion == "mse" else ms_ssim_db(_ms_ssim(point))

    def curve(self, points: Iterable[CurvePoint]) -> list[tuple[float, float]]:
        """`pair` of each point."""
        return [self.pair(point) for point in points]

    def cost(self, point: CurvePoint) -> tuple[float, float]:
        """(bits per pixel, what lambda is multiplied with). Raises ValueError if MS-SSIM was not measured."""
        return point.bpp, 255**2 * point.mse if self.distortion == "mse" else 1 - _ms_ssim(point)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One photograph at one rate point."""

    photograph: str
    rate_point: int | float  # index of the rate point, or a gain
    bpp: float
    psnr_db: float
    mse: float  # on values in 0..1, 8-bit rounded
    ms_ssim: float | None = None  # of the same values; None: a side below 161
    bytes: int | None = None  # of the real bitstream; None: estimated
    sha256: str | None = None  # of the real bitstream


METRICS: Mapping[Distortion, Metric] = {
    "mse": Metric(label="PSNR", distortion="mse"),
    "ms-ssim": Metric(label="MS-SSIM", distortion="ms-ssim"),
}


def psnr_db(mse: float) -> float:
    """PSNR of an MSE on values in 0..1; at most 100 dB, which an exact copy has."""
    return min(HIGHEST_DB, -10 * math.log10(mse)) if mse > 0 else HIGHEST_DB


def ms_ssim_db(ms_ssim: float) -> float:
    """-10 log10(1 - MS-SSIM), at most 100 dB."""
    return psnr_db(1 - ms_ssim)


def _ms_ssim(point: CurvePoint) -> float:
    if point.ms_ssim is None:
        raise ValueError(f"rate point {point.rate_point} has no MS-SSIM")
    return point.ms_ssim
