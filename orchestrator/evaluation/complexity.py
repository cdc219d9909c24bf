"""What a network costs: parameters, multiply-accumulates per pixel and, where asked for, milliseconds.

Needs torch when called, so a driver calls it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.families import Kind
from orchestrator.evaluation.costs import Complexity

if TYPE_CHECKING:
    from models.ladder import RateLadder


def complexity(
    *,
    family: str,
    N: int,
    M: int,
    Z: int | None = None,
    encoder_N: int | None = None,
    lambdas: Sequence[float],
    kind: Kind,
    timed: bool = False,
) -> Complexity:
    """Arguments as of `models.ladder.RateLadder`.

    Args:
        timed: whether to measure milliseconds on this machine. All else is the same everywhere.
    """
    from models.ladder import RateLadder

    ladder = RateLadder(family=family, N=N, M=M, Z=Z, encoder_N=encoder_N, lambdas=lambdas, kind=kind)
    return complexity_of(ladder, timed=timed)


def complexity_of(ladder: RateLadder, *, timed: bool = False) -> Complexity:
    """As `complexity`, of a network that there is."""
    from models import macs, times

    counted = macs.count(ladder)
    encode_ms, decode_ms = times.measure(ladder) if timed else (None, None)
    return Complexity(
        params=sum(parameter.numel() for parameter in ladder.parameters()),
        macs_per_pixel=counted.total,
        encoder_macs_per_pixel=counted.encoder,
        decoder_macs_per_pixel=counted.decoder,
        encode_ms_per_megapixel=encode_ms,
        decode_ms_per_megapixel=decode_ms,
    )
