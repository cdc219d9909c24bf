"""Rate and distortion of a ladder on photographs: estimated from the likelihoods, or coded into real bitstreams.

Estimates stop trials early; figures to publish and to register come from real bitstreams.

Rate: bits over the photograph's own pixel count, padding's bits and the header included. Distortion: MSE over all
three channels of the RGB image rounded to 8 bits, PSNR in dB from it; MS-SSIM of the same images where they are large
enough for it. Averaging: per photograph, then the mean over photographs (not the PSNR of the mean MSE); of MS-SSIM the
mean, then dB.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from lic_codec.container import parse
from lic_codec.errors import MismatchError
from models.bitstream import CodingLadder, Rgb, to_padded_tensor, to_rgb
from models.families import LEAST_SIDE
from models.plain_number import Numeric
from orchestrator.evaluation.metric import CurvePoint, Measured, psnr_db

if TYPE_CHECKING:
    from torch import Tensor

    from models.ladder import LadderOutput, RateLadder

AVERAGING = "per photograph, then the mean over photographs"
COLOUR_SPACE = "RGB, 8 bits a channel, all three channels together"
Named = tuple[str, Rgb]  # a photograph's name and its uint8 [H, W, 3]


class Distortions(TypedDict):
    """The distortions of one decoded image, as `Measured` has them."""

    mse: float
    psnr_db: float
    ms_ssim: float | None


def estimate(ladder: RateLadder, photographs: Iterable[Named], rate_points: Sequence[Numeric]) -> Iterator[Measured]:
    """Measures without coding: the rate is that of the likelihoods of the rounded latents (no header).

    Args:
        ladder: any ladder; in eval mode while a photograph is measured, then again in the mode it had.
        photographs: any sizes.
        rate_points: of the ladder.

    Raises:
        ValueError: the ladder has no such rate point.
    """
    points = [ladder.rate_point(rate_point) for rate_point in rate_points]
    for name, rgb in photographs:
        height, width = rgb.shape[:2]
        for rate_point in points:
            bits, decoded = estimated(ladder, rgb, rate_point)
            bpp = bits / (height * width)
            yield Measured(photograph=name, rate_point=rate_point, bpp=bpp, **distortions(rgb, decoded))


def estimated(ladder: RateLadder, rgb: Rgb, rate_point: int | float) -> tuple[float, Rgb]:
    """The bits of the likelihoods, and the decoded photograph uint8 [H, W, 3]; see `estimate`."""
    height, width = rgb.shape[:2]
    x = to_padded_tensor(rgb).to(next(ladder.parameters()).device)
    training = ladder.training
    ladder.eval()
    with torch.no_grad():
        output = ladder(x, rate_point)
    ladder.train(training)
    return bits_of(output), to_rgb(output["x_hat"][0, :, :height, :width].cpu())


def bits_of(output: LadderOutput) -> float:
    """The estimated bits of what `RateLadder.forward` returned."""
    likelihoods: Mapping[str, Tensor] = output["likelihoods"]  # type: ignore[assignment] # the one that is no tensor
    return -sum(float(of_latent.double().log2().sum()) for of_latent in likelihoods.values())


def coded(coding: CodingLadder, photographs: Iterable[Named], rate_points: Sequence[Numeric]) -> Iterator[Measured]:
    """Measures real bitstreams: encodes, decodes the bytes, and checks that the decoder's latent is the encoder's.

    Raises:
        ValueError: the ladder has no such rate point.
        MismatchError: the latents differ.
    """
    points = [coding.ladder.rate_point(rate_point) for rate_point in rate_points]
    codec = coding.codec
    for name, rgb in photographs:
        height, width = rgb.shape[:2]
        latent = None
        for rate_point in points:
            encoded, latent = coding.encode(rgb, rate_point, latent)
            rate, y_hat = codec.decode_latent(parse(encoded.stream))
            if not np.array_equal(y_hat, encoded.y_hat):
                raise MismatchError(f"{name} at rate point {rate_point}: the decoder's latent is not the encoder's")
            decoded = codec.synthesise(rate.network, y_hat, width, height)
            yield Measured(
                photograph=name,
                rate_point=rate_point,
                bpp=8 * len(encoded.stream) / (height * width),
                **distortions(rgb, decoded),
                bytes=len(encoded.stream),
                sha256=hashlib.sha256(encoded.stream).hexdigest(),
            )


def curve(measured: Iterable[Measured]) -> list[CurvePoint]:
    """The mean over photographs at each rate point, in the order in which rate points first occur.

    Returns:
        One point per rate point; with MS-SSIM if all photographs have it.

    Raises:
        ValueError: rate points were not measured on the same photographs.
    """
    by_rate_point: dict[int | float, list[Measured]] = {}
    for row in measured:
        by_rate_point.setdefault(row.rate_point, []).append(row)
    if len({tuple(sorted(row.photograph for row in rows)) for rows in by_rate_point.values()}) > 1:
        raise ValueError("the rate points were measured on different photographs")
    has_ms_ssim = all(row.ms_ssim is not None for rows in by_rate_point.values() for row in rows)
    names = ("bpp", "psnr_db", "mse", *(("ms_ssim",) if has_ms_ssim else ()))
    return [
        CurvePoint(
            rate_point=rate_point,
            **{name: math.fsum(getattr(row, name) for row in rows) / len(rows) for name in names},
        )
        for rate_point, rows in by_rate_point.items()
    ]


def distortions(original: Rgb, decoded: Rgb) -> Distortions:
    """The distortions of two uint8 images of one shape [H, W, 3]. Raises ValueError for different shapes."""
    mse = mse_of(original, decoded)
    return {"mse": mse, "psnr_db": psnr_db(mse), "ms_ssim": ms_ssim_of(original, decoded)}


def ms_ssim_of(original: Rgb, decoded: Rgb) -> float | None:
    """MS-SSIM of two uint8 images of one shape, by pytorch-msssim; None if a side is below 161."""
    if min(original.shape[:2]) < LEAST_SIDE:
        return None
    from pytorch_msssim import ms_ssim

    both = (torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() for rgb in (decoded, original))
    with torch.no_grad():
        return float(ms_ssim(*both, data_range=255.0))


def mse_of(original: Rgb, decoded: Rgb) -> float:
    """Mean squared error of two uint8 images, on values in 0..1. Raises ValueError for different shapes."""
    if original.shape != decoded.shape:
        raise ValueError(f"images of {original.shape} and {decoded.shape} cannot be compared")
    return float(np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)) / 255**2
