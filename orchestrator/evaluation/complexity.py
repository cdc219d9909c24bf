"""What a network costs: parameters, and multiply-accumulates per pixel. Deterministic, so it can be a front's axis.

Needs torch when called, so a driver calls it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.families import Kind
from orchestrator.evaluation.costs import Complexity


def complexity(
    *,
    family: str,
    N: int,
    M: int,
    Z: int | None = None,
    encoder_N: int | None = None,
    lambdas: Sequence[float],
    kind: Kind,
) -> Complexity:
    """Arguments as of `models.ladder.RateLadder`."""
    from models import macs
    from models.ladder import RateLadder

    ladder = RateLadder(family=family, N=N, M=M, Z=Z, encoder_N=encoder_N, lambdas=lambdas, kind=kind)
    counted = macs.count(ladder)
    return Complexity(
        params=sum(parameter.numel() for parameter in ladder.parameters()),
        macs_per_pixel=counted.total,
        encoder_macs_per_pixel=counted.encoder,
        decoder_macs_per_pixel=counted.decoder,
    )
