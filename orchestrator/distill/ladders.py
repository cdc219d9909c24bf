"""A rate ladder from the sections of a specification."""

from __future__ import annotations

from models.ladder import RateLadder
from orchestrator.spec.sections import Network, RateLadderSection


def ladder_of(network: Network, rates: RateLadderSection) -> RateLadder:
    """A ladder of an architecture at a specification's rate points, with random weights."""
    return RateLadder(
        family=network.family,
        N=network.N,
        M=network.M,
        Z=network.Z,
        encoder_N=network.encoder_N,
        lambdas=rates.lambdas,
        kind=rates.kind,
        distortion=rates.distortion,
    )
