"""Claims a shard that nobody else fills."""

from __future__ import annotations

from orchestrator.features.fill.claim import LEASE_S, Claim, claim
from orchestrator.store.store import Store


def claimed(store: Store, name: str, owner: str, lease_s: float = LEASE_S) -> Claim:
    """`claim`, which must succeed because nobody else fills the shard."""
    mine = claim(store, name, owner, lease_s)
    assert mine is not None
    return mine
