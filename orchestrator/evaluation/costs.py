"""What a network costs, as values (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """MACs as of `models.macs.Macs`; the entropy coder's tables cost none."""

    params: int  # of the whole ladder: all its networks
    macs_per_pixel: float  # of coding and decoding one photograph at one rate point: each part once
    encoder_macs_per_pixel: float  # all but g_s
    decoder_macs_per_pixel: float  # all but g_a and h_a
    # Of the transforms on the processor of one node, by one thread; None: not measured, since no axis asked for it.
    encode_ms_per_megapixel: float | None = None
    decode_ms_per_megapixel: float | None = None
