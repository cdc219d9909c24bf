"""Photographs to bytes and back with a rate ladder, under torch.

The codec is `lic_codec`'s: the stream's format, the entropy model in whole numbers and the range coder are there. What
need not be exact, the transforms g_a, h_a and g_s, runs here as the ladder's own modules in float32. So streams are the
same as those of an exported bundle, which has no torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lic_codec import rates
from lic_codec.codec import Codec, Coded, Latent, Rgb
from lic_codec.container import ChunkKind
from lic_codec.errors import CodecError
from lic_codec.rates import Rate
from lic_codec.tiles import BLOCK
from models.plain_number import Numeric
from models.receptive_field import margin
from models.whole_numbers import entropy_model

if TYPE_CHECKING:
    from models.ladder import RateLadder

__all__ = ["CodecError", "CodingLadder", "Rgb", "decode_image", "encode_image", "prepare_for_coding"]
Float = npt.NDArray[np.float32]


class TorchTransforms:
    """A ladder's transforms; see `lic_codec.codec.Transforms`."""

    def __init__(self, ladder: RateLadder) -> None:
        self.ladder = ladder
        self.absolute = ladder.family == "hyperprior"

    @cached_property
    def analysis_margin(self) -> int:
        """Blocks."""
        return margin(self.ladder.networks[0].g_a, 3, BLOCK)

    @cached_property
    def synthesis_margin(self) -> int:
        """Blocks."""
        return margin(self.ladder.networks[0].g_s, self.ladder.M, BLOCK // 16)

    def analysis(self, network: int, x: Float) -> Float:
        """g_a."""
        return _run(self.ladder.networks[network].g_a, x)

    def hyper_analysis(self, network: int, y: Float) -> Float:
        """h_a."""
        return _run(self.ladder.networks[network].h_a, y)

    def synthesis(self, network: int, y_hat: Float) -> Float:
        """g_s."""
        return _run(self.ladder.networks[network].g_s, y_hat)


def _run(module: torch.nn.Module, values: Float) -> Float:
    with torch.inference_mode():
        found: Float = module(torch.from_numpy(values)).numpy()
    return found


@dataclass(frozen=True, kw_only=True)
class CodingLadder:
    """A ladder prepared for coding, by `prepare_for_coding`."""

    ladder: RateLadder
    codec: Codec

    @property
    def entropy_id(self) -> str:
        """Of the entropy model, hex; streams can be exchanged where it is equal."""
        return self.codec.entropy.id

    def rate(self, rate_point: Numeric) -> Rate:
        """The codec's rate.

        Args:
            rate_point: a whole number, an index into the ladder's lambdas; or any other real number, a gain above 0 and
                up to 2 of a variable-rate ladder, rounded to steps of 2^-14. Python's, NumPy's, pandas' or torch's.

        Raises:
            CodecError: no such rate point.
        """
        try:
            number = self.ladder.rate_point(rate_point)
        except ValueError as error:
            raise CodecError(str(error)) from None
        if isinstance(number, int):
            return rates.rate_point(self.codec.entropy, number)
        return rates.gain(self.codec.entropy, number)

    def encode(self, rgb: Rgb, rate_point: Numeric, latent: Latent | None = None) -> tuple[Coded, Latent]:
        """Codes a photograph; with what its stream is made from.

        Args:
            rgb: see `encode_image`.
            rate_point: see `rate`.
            latent: what coding the same photograph at another rate point returned.

        Raises:
            CodecError: not a photograph, or no such rate point.
        """
        rate = self.rate(rate_point)
        latent = self.codec.analyse(rgb, rate, latent)
        return self.codec.encode_latent(latent, rate), latent


def prepare_for_coding(ladder: RateLadder) -> CodingLadder:
    """A copy of `ladder` on the CPU in eval mode that codes."""
    coding = copy.deepcopy(ladder).cpu().eval().requires_grad_(False)
    coding.set_precision(torch.float32)
    return CodingLadder(ladder=coding, codec=Codec(transforms=TorchTransforms(coding), entropy=entropy_model(coding)))


def encode_image(
    coding: CodingLadder, rgb: Rgb, rate_point: Numeric, chunks: Mapping[ChunkKind, bytes] | None = None
) -> bytes:
    """Codes a photograph into a stream.

    Args:
        coding: see `prepare_for_coding`.
        rgb: uint8 [H, W, 3], 1 to 65,535 pixels a side.
        rate_point: see `CodingLadder.rate`.
        chunks: what is kept beside the pixels.

    Raises:
        CodecError: not a photograph as described, or no such rate point.
    """
    return coding.codec.encode(rgb, coding.rate(rate_point), chunks)


def decode_image(coding: CodingLadder, stream: bytes) -> Rgb:
    """The inverse of `encode_image`: uint8 [H, W, 3].

    Raises CodecError: `stream` is damaged, or of another entropy model.
    """
    return coding.codec.decode(stream)


def to_padded_tensor(rgb: Rgb) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H', W'] in 0..1, its right and bottom edges repeated up to multiples of 64."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
    return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].float() / 255


def to_rgb(x_hat: Tensor) -> Rgb:
    """float [3, H, W] -> uint8 [H, W, 3], clamped and rounded to the nearest of 256 values."""
    rounded: Rgb = (x_hat.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return rounded
