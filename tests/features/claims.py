"""A claim that is to be had."""

from __future__ import annotations

from orchestrator.features.fill.claim import LEASE_S, Claim, claim
from orchestrator.store.store import Store


def claimed(store: Store, name: str, owner: str, lease_s: float = LEASE_S) -> Claim:
    """As `claim`, of a shard that nobody else fills."""
    mine = claim(store, name, owner, lease_s)
    assert mine is not None
    return mine
