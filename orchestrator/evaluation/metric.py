"""What the distortion of an image is measured by: pure, and without torch.

A ladder's lambdas weigh one of two distortions, in CompressAI's units: 255^2 * MSE of values in 0..1, or 1 - MS-SSIM.
Its curves are drawn over that distortion's quality in dB: PSNR, or MS-SSIM as -10 log10(1 - MS-SSIM), of the mean
MS-SSIM over photographs (as CompressAI plots it), while PSNR is the mean of the photographs' own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.families import Distortion

HIGHEST_DB = 100.0  # what an exact copy counts as, so that every figure is finite


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a rate-distortion point (bpp, mse, psnr_db, perhaps ms_ssim and ms_ssim_db) is read."""

    label: str  # of the quality
    quality: str  # key of a point: dB, higher is better

    def pair(self, point: Mapping[str, Any]) -> tuple[float, float]:
        """(bits per pixel, quality in dB), which BD-rates compare."""
        return point["bpp"], point[self.quality]

    def curve(self, points: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
        return [self.pair(point) for point in points]

    def cost(self, point: Mapping[str, Any]) -> tuple[float, float]:
        """(bits per pixel, what lambda is multiplied with)."""
        return point["bpp"], 255**2 * point["mse"] if self.quality == "psnr_db" else 1 - point["ms_ssim"]


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
    "mse": Metric(label="PSNR", quality="psnr_db"),
    "ms-ssim": Metric(label="MS-SSIM", quality="ms_ssim_db"),
}


def psnr_db(mse: float) -> float:
    """PSNR of an MSE on values in 0..1; at most 100 dB, which an exact copy has."""
    return min(HIGHEST_DB, -10 * math.log10(mse)) if mse > 0 else HIGHEST_DB


def with_db(point: Mapping[str, float]) -> dict[str, float]:
    """A point with its MS-SSIM in dB beside the mean one, if it has one."""
    return {**point, "ms_ssim_db": ms_ssim_db(point["ms_ssim"])} if "ms_ssim" in point else {**point}


def ms_ssim_db(ms_ssim: float) -> float:
    """-10 log10(1 - MS-SSIM), at most 100 dB."""
    return psnr_db(1 - ms_ssim)
