"""Codes a photograph at a rate, or at the rate that meets a target: bits per pixel, or PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lic_codec.codec import Codec, Rgb
from lic_codec.container import ChunkKind
from lic_codec.errors import CodecError
from lic_codec.metrics import psnr_db
from lic_codec.rates import LARGEST_GAIN, Rate, between, gain, rate_point

STEPS = 14  # halvings of the range of gains
SMALLEST_GAIN = 2.0**-10


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked for; one of them, or none: the middle rate point.

    Attributes:
        rate: a number on the model's ladder; a fractional one lies between two rate points.
        gain: inverse quantisation step.
        bpp: at most so many bits per pixel, as near as possible.
        psnr: at least so many dB, as near as possible.
    """

    rate: float | None = None
    gain: float | None = None
    bpp: float | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in self.__dict__.items() if value is not None]
        if len(given) > 1:
            raise CodecError(f"{' and '.join(given)}: one of them is allowed")


def encode(codec: Codec, rgb: Rgb, target: Target, kept: Mapping[ChunkKind, bytes] | None = None) -> bytes:
    """Codes a photograph.

    Args:
        codec: of any model.
        rgb: uint8 [H, W, 3].
        target: see `Target`.
        kept: beside the pixels.

    Raises:
        CodecError: no such rate, or a target that the model does not reach.
    """
    if target.bpp is None and target.psnr is None:
        return codec.encode(rgb, _asked(codec, target), kept)
    first = rate_point(codec.entropy, 0)
    latent = codec.analyse(rgb, first)
    pixels = rgb.shape[0] * rgb.shape[1]

    def coded(rate: Rate) -> tuple[bytes, float]:
        """A stream, and how far it is above the target."""
        found = codec.encode_latent(codec.analyse(rgb, rate, latent), rate, kept)
        if target.bpp is not None:
            return found.stream, 8 * len(found.stream) / pixels - target.bpp
        assert target.psnr is not None
        decoded = codec.synthesise(rate.network, found.y_hat, rgb.shape[1], rgb.shape[0])
        return found.stream, psnr_db(rgb, decoded) - target.psnr

    return _by_gain(codec, coded, target) if codec.entropy.variable else _by_point(codec, coded, target)


def _asked(codec: Codec, target: Target) -> Rate:
    if target.gain is not None:
        return gain(codec.entropy, target.gain)
    if target.rate is not None:
        return between(codec.entropy, target.rate)
    return rate_point(codec.entropy, len(codec.entropy.gains) // 2)


Coded = Callable[[Rate], tuple[bytes, float]]


def _by_gain(codec: Codec, coded: Coded, target: Target) -> bytes:
    """Halves the range of gains; PSNR and bits rise with the gain."""
    low, high = math.log(SMALLEST_GAIN), math.log(LARGEST_GAIN)
    (at_low, below), (at_high, above) = (coded(gain(codec.entropy, math.exp(end))) for end in (low, high))
    if below > 0 if target.psnr is None else above < 0:
        raise _unreached(target, below if target.psnr is None else above)
    if above <= 0:  # of bits: the most that there is
        return at_high
    if below >= 0:  # of PSNR: the least that there is
        return at_low
    best = at_low if target.psnr is None else at_high
    for _ in range(STEPS):
        middle = (low + high) / 2
        stream, over = coded(gain(codec.entropy, math.exp(middle)))
        low, high = (middle, high) if over <= 0 else (low, middle)
        if (over <= 0) == (target.psnr is None):
            best = stream
    return best


def _by_point(codec: Codec, coded: Coded, target: Target) -> bytes:
    found = [coded(rate_point(codec.entropy, index)) for index in range(len(codec.entropy.gains))]
    if target.psnr is None:
        fitting = [(-over, stream) for stream, over in found if over <= 0]
        nearest = min(over for _, over in found)
    else:
        fitting = [(over, stream) for stream, over in found if over >= 0]
        nearest = max(over for _, over in found)
    if not fitting:
        raise _unreached(target, nearest)
    return min(fitting)[1]


def _unreached(target: Target, nearest: float) -> CodecError:
    if target.psnr is None:
        assert target.bpp is not None
        return CodecError(f"bpp {target.bpp:g}: this model needs at least {target.bpp + nearest:.3f} for this picture")
    return CodecError(f"psnr {target.psnr:g}: this model reaches {target.psnr + nearest:.2f} dB with this picture")
