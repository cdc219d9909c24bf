"""The list of the objects that make up a feature plan, with their digests.

JSON at `ledgers/<digest of the plan>.json`, written last: `{"format": 1, "taps": {tap: [{"key", "sha256", "bytes"}]}}`,
one entry a shard, in the plan's order. Its presence says that all objects were published; their digests are what a
reader holds them to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from orchestrator.features.key import FeatureError, FeaturePlan, Tap
from orchestrator.store import Store

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    key: str
    sha256: str  # of the object's bytes
    bytes: int


Ledger = dict[Tap, tuple[Entry, ...]]


def entry_of(key: str, data: bytes) -> Entry:
    return Entry(key=key, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def to_json(ledger: Ledger) -> bytes:
    taps = {tap: [asdict(entry) for entry in entries] for tap, entries in ledger.items()}
    return json.dumps({"format": FORMAT, "taps": taps}, sort_keys=True).encode()


def read_ledger(store: Store, features: FeaturePlan) -> Ledger | None:
    """The plan's ledger, None if it was not written yet. Raises FeatureError if it is not one of this plan."""
    try:
        text = store.read(features.ledger)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        ledger: Ledger = {tap: tuple(Entry(**entry) for entry in content["taps"][tap]) for tap in features.taps}
        for tap, keys in zip(features.taps, features.keys, strict=True):
            if tuple(entry.key for entry in ledger[tap]) != keys:
                raise ValueError(f"other keys for tap {tap}")
    except (ValueError, KeyError, TypeError) as error:
        raise FeatureError(f"{store.url}/{features.ledger}: not the ledger of {features.title} ({error})") from error
    return ledger
