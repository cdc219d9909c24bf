"""Rates: a rate point of the ladder, or any gain; two bytes in a stream.

A gain is the inverse quantisation step of the latent. The rate points of a variable-rate model are gains with names.
"""

from __future__ import annotations

from dataclasses import dataclass

from lic_codec.entropy import EntropyModel
from lic_codec.errors import CodecError

GAIN_FLAG = 0x8000  # if set, the other 15 bits are a gain: (bits + 1) * 2^-14
GAIN_STEPS = 1 << 14  # a gain of 1
LARGEST_GAIN = 2.0


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a rate code stands for."""

    code: int
    network: int
    gain: float


def rate_of(model: EntropyModel, code: int) -> Rate:
    """What a code stands for. Raises CodecError: the model has no such rate."""
    if code & GAIN_FLAG:
        if not model.variable:
            raise CodecError("damaged stream: a gain, of a model that has rate points alone")
        return Rate(code=code, network=0, gain=((code & ~GAIN_FLAG) + 1) / GAIN_STEPS)
    if code >= len(model.gains):
        raise CodecError(f"damaged stream: rate point {code} of {len(model.gains)}")
    return Rate(code=code, network=0 if model.variable else code, gain=model.gains[code])


def rate_point(model: EntropyModel, index: int) -> Rate:
    """A rate point. Raises CodecError: the model has none with this index."""
    if not 0 <= index < len(model.gains):
        raise CodecError(f"rate point {index} is not one of 0 to {len(model.gains) - 1}")
    return rate_of(model, index)


def gain(model: EntropyModel, value: float) -> Rate:
    """The gain nearest to a value, in steps of 2^-14. Raises CodecError: none, or the model has rate points alone."""
    if not model.variable:
        last = len(model.gains) - 1
        raise CodecError(f"gain {value}: this model has rate points alone, whole numbers from 0 to {last}")
    steps = round(value * GAIN_STEPS) if 0 < value <= LARGEST_GAIN else 0
    if not steps:
        raise CodecError(f"gain {value} is not above 0 and at most {LARGEST_GAIN:g}")
    return rate_of(model, GAIN_FLAG | (steps - 1))


def between(model: EntropyModel, value: float) -> Rate:
    """A rate by its number on the ladder: a whole one is a rate point, 1.5 a gain between two.

    Raises CodecError: it is not on the ladder, or the model has rate points alone.
    """
    last = len(model.gains) - 1
    if not 0 <= value <= last:
        raise CodecError(f"rate {value} is not one of 0 to {last}")
    if float(value).is_integer():
        return rate_point(model, int(value))
    if not model.variable:
        raise CodecError(f"rate {value}: this model has rate points alone, whole numbers from 0 to {last}")
    lower = int(value)
    share = value - lower
    return gain(model, model.gains[lower] ** (1 - share) * model.gains[lower + 1] ** share)
