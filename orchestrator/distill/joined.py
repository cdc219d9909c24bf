"""First weights of a pair: one trial's encoder, another's decoder, and the entropy model that both share."""

from __future__ import annotations

import hashlib
import json

from orchestrator.distill.refit.stored import publish_start
from orchestrator.store.store import Store

JOIN_VERSION = 1  # raise it when the same halves give other weights


def joined_name(encoder: str, decoder: str) -> str:
    """The name in the store of a pair's first weights.

    Args:
        encoder, decoder: SHA-256 of the halves' weights files.
    """
    content = json.dumps(["joined", JOIN_VERSION, encoder, decoder])
    return f"starts/{hashlib.sha256(content.encode()).hexdigest()}.safetensors"


def make_joined(store: Store, name: str, encoder: bytes, decoder: bytes) -> None:
    """Publishes a pair's first weights.

    Args:
        store: of the features.
        name: see `joined_name`.
        encoder, decoder: the content of the halves' weights files.

    Raises WeightsError, StoreError; ValueError: the halves do not fit.
    """
    from models.ladder import joined
    from models.weights import ladder_from

    publish_start(store, name, joined(ladder_from(encoder), ladder_from(decoder)))
