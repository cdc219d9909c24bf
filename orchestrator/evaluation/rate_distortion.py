"""Rate and distortion of a ladder on photographs: estimated from the likelihoods, or coded into real bitstreams.

Estimates stop trials early; figures to publish and to register come from real bitstreams.

Rate: bits over the photograph's own pixel count, padding's bits and the header included. Distortion: MSE over all
three channels of the RGB image rounded to 8 bits, PSNR in dB from it. Averaging: per photograph, then the mean over
photographs (not the PSNR of the mean MSE).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from orchestrator.codec import CodingLadder, Rgb, decode, encode_image, to_padded_tensor, to_rgb

if TYPE_CHECKING:
    from models.ladder import RateLadder

AVERAGING = "per photograph, then the mean over photographs"
COLOUR_SPACE = "RGB, 8 bits a channel, all three channels together"
HIGHEST_PSNR_DB = 100.0  # what an exact copy counts as, so that every figure is finite
FORWARD_TOLERANCE = (
    1e-5  # largest difference between the decoder's image and the encoder's forward pass, values in 0..1
)

Named = tuple[str, Rgb]  # a photograph's name and its uint8 [H, W, 3]


class MismatchError(RuntimeError):
    """The decoder's image is not what the encoder's forward pass gave: the figures of this machine cannot be
    trusted."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One photograph at one rate point."""

    photograph: str
    rate_point: int | float  # index of the rate point, or a gain
    bpp: float
    psnr_db: float
    mse: float  # on values in 0..1, 8-bit rounded
    bytes: int | None = None  # of the real bitstream; None: estimated
    sha256: str | None = None  # of the real bitstream


def estimate(
    ladder: RateLadder, photographs: Iterable[Named], rate_points: Sequence[int | float]
) -> Iterator[Measured]:
    """Measures without coding: the rate is that of the likelihoods of the rounded latents (no header).

    Args:
        ladder: any ladder; in eval mode while a photograph is measured, then again in the mode it had.
        photographs: any sizes.
    """
    device = next(ladder.parameters()).device
    for name, rgb in photographs:
        height, width = rgb.shape[:2]
        x = to_padded_tensor(rgb).to(device)
        for rate_point in rate_points:
            training = ladder.training
            ladder.eval()
            with torch.no_grad():
                output = ladder(x, rate_point)
            ladder.train(training)
            bits = -sum(float(each.double().log2().sum()) for each in output["likelihoods"].values())
            mse = mse_of(rgb, to_rgb(output["x_hat"][0, :, :height, :width].cpu()))
            yield Measured(
                photograph=name, rate_point=rate_point, bpp=bits / (height * width), psnr_db=psnr_db(mse), mse=mse
            )


def coded(coding: CodingLadder, photographs: Iterable[Named], rate_points: Sequence[int | float]) -> Iterator[Measured]:
    """Measures real bitstreams: encodes, decodes the bytes, and checks the decoded image against the encoder's forward
    pass.

    Raises:
        MismatchError: they differ by more than 1e-5.
    """
    for name, rgb in photographs:
        for rate_point in rate_points:
            stream = encode_image(coding, rgb, rate_point)
            decoded = decode(coding, stream)
            difference = float((decoded - coding.forward(rgb, rate_point).clamp(0, 1)).abs().max())
            if not difference <= FORWARD_TOLERANCE:
                raise MismatchError(
                    f"{name} at rate point {rate_point}: decoded and forward images differ by {difference:.1e}"
                )
            mse = mse_of(rgb, to_rgb(decoded))
            yield Measured(
                photograph=name,
                rate_point=rate_point,
                bpp=8 * len(stream) / (rgb.shape[0] * rgb.shape[1]),
                psnr_db=psnr_db(mse),
                mse=mse,
                bytes=len(stream),
                sha256=hashlib.sha256(stream).hexdigest(),
            )


def curve(measured: Iterable[Measured]) -> list[dict[str, float]]:
    """The mean over photographs at each rate point, in the order in which rate points first occur.

    Returns:
        One {"rate_point", "bpp", "psnr_db", "mse"} a rate point.

    Raises:
        ValueError: rate points were not measured on the same photographs.
    """
    at: dict[int | float, list[Measured]] = {}
    for each in measured:
        at.setdefault(each.rate_point, []).append(each)
    if len({tuple(sorted(each.photograph for each in group)) for group in at.values()}) > 1:
        raise ValueError("the rate points were measured on different photographs")
    return [
        {
            "rate_point": rate_point,
            "bpp": math.fsum(each.bpp for each in group) / len(group),
            "psnr_db": math.fsum(each.psnr_db for each in group) / len(group),
            "mse": math.fsum(each.mse for each in group) / len(group),
        }
        for rate_point, group in at.items()
    ]


def mse_of(original: Rgb, decoded: Rgb) -> float:
    """Mean squared error of two uint8 images of one shape, on values in 0..1."""
    if original.shape != decoded.shape:
        raise ValueError(f"images of {original.shape} and {decoded.shape} cannot be compared")
    return float(np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)) / 255**2


def psnr_db(mse: float) -> float:
    """PSNR of an MSE on values in 0..1; at most 100 dB, which an exact copy has."""
    return min(HIGHEST_PSNR_DB, -10 * math.log10(mse)) if mse > 0 else HIGHEST_PSNR_DB
