"""How much two pictures differ: PSNR and MS-SSIM of 8-bit RGB."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lic_codec.codec import Rgb
from lic_codec.errors import CodecError

HIGHEST_DB = 100.0  # what an exact copy counts as where every figure has to be finite
LEAST_SIDE = 161  # pixels: MS-SSIM halves a picture four times and then compares windows of 11 pixels
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
Plane = npt.NDArray[np.float64]


def psnr_db(one: Rgb, other: Rgb) -> float:
    """PSNR over all three channels together; infinite for equal pictures. Raises CodecError: other sizes."""
    _check_sizes(one, other)
    mse = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(one: Rgb, other: Rgb) -> float | None:
    """MS-SSIM (Wang, Simoncelli and Bovik 2003), the mean of the channels; None if a side is below 161 pixels.

    Raises CodecError: other sizes.
    """
    _check_sizes(one, other)
    if min(one.shape[:2]) < LEAST_SIDE:
        return None
    return sum(_of_channel(one[..., channel], other[..., channel]) for channel in range(3)) / 3


def ms_ssim_db(value: float) -> float:
    """-10 log10(1 - MS-SSIM), at most 100 dB."""
    return HIGHEST_DB if value >= 1 else min(HIGHEST_DB, -10 * math.log10(1 - value))


def _check_sizes(one: Rgb, other: Rgb) -> None:
    if one.shape != other.shape:
        sizes = (f"{rgb.shape[1]}x{rgb.shape[0]}" for rgb in (one, other))
        raise CodecError(f"pictures of {' and '.join(sizes)} pixels cannot be compared")


def _of_channel(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    a, b, product = one.astype(np.float64), other.astype(np.float64), 1.0
    for scale, weight in enumerate(_WEIGHTS):
        mean_a, mean_b, aa, bb, ab = (_blurred(values) for values in (a, b, a * a, b * b, a * b))
        contrast = (2 * (ab - mean_a * mean_b) + _C2) / (aa - mean_a**2 + bb - mean_b**2 + _C2)
        luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
        mean = float((contrast if scale < len(_WEIGHTS) - 1 else contrast * luminance).mean())
        product *= max(mean, 0.0) ** weight
        a, b = _halved(a), _halved(b)
    return product


def _blurred(values: Plane) -> Plane:
    ticks = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(ticks**2) / (2 * _SIGMA**2))
    window /= window.sum()
    half, kept = _WINDOW // 2, [side - _WINDOW + 1 for side in values.shape]
    for axis, length in enumerate(kept):
        shifted = [
            values[place : place + length] if axis == 0 else values[:, place : place + length]
            for place in range(_WINDOW)
        ]
        total: Plane = shifted[half] * window[half]
        for place in range(half):  # the window is symmetric
            total += (shifted[place] + shifted[-1 - place]) * window[place]
        values = total
    return values


def _halved(values: Plane) -> Plane:
    """Means of 2x2; an odd side is padded with zeros on both sides, as pytorch-msssim pads."""
    padded = np.pad(values, [(side % 2, side % 2) for side in values.shape])
    height, width = (side // 2 * 2 for side in padded.shape)
    found: Plane = padded[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return found
