"""The two kinds of JSON files beside the objects: a record for each shard, and a ledger for each feature plan.

    shards/SOURCE/UNIT.json  {"format": 2, "objects": {key: {"sha256", "bytes"}},
                              "lease": {"owner", "beat", "seconds"} or null}
    ledgers/PLAN.json        {"format": 2, "teacher": {"name", "digest"} or null, "crops": how many,
                              "shards": [unit, ...], "taps": {tap: [{"key", "sha256", "bytes"}, one a shard]}}

A record says who fills a shard and which of its objects exist; it changes by conditional writes only (claim.py). A
ledger is written last, when all objects of its plan are published; readers check the objects against its digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.features.format.key import FeatureError, FeaturePlan, Tap
from orchestrator.spec.messages import shown
from orchestrator.store.store import Store
from orchestrator.store.tries import tries

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object that was published."""

    key: str
    sha256: str  # of the object's bytes
    bytes: int


Ledger = dict[Tap, tuple[Entry, ...]]


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """Who fills a shard and which of its objects exist. Without arguments: nobody, none."""

    objects: Mapping[str, Entry] = field(default_factory=dict)  # by key
    owner: str | None = None  # who fills it now
    beat: int = 0  # how often the owner has renewed its lease
    lease_s: float = 0.0  # an owner that has not renewed it for so long counts as dead

    def to_json(self) -> bytes:
        """The record's file."""
        objects = {key: {"sha256": entry.sha256, "bytes": entry.bytes} for key, entry in self.objects.items()}
        lease = {"owner": self.owner, "beat": self.beat, "seconds": self.lease_s} if self.owner else None
        return json.dumps({"format": FORMAT, "objects": objects, "lease": lease}, sort_keys=True).encode()

    def live(self, age_s: float) -> bool:
        """Whether somebody fills the shard; `age_s` is the record's age by the store's clock."""
        return self.owner is not None and age_s <= self.lease_s

    @classmethod
    def from_json(cls, data: bytes) -> ShardRecord:
        """The record in a file, an empty one if the bytes are not a record. Raises FeatureError for another format."""
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise FeatureError(
                    f"a shard's record of format {shown(content['format'])}: this version knows {FORMAT}"
                )
            lease = content["lease"] or {"owner": None, "beat": 0, "seconds": 0.0}
            objects = {key: Entry(key=key, **entry) for key, entry in content["objects"].items()}
            return cls(objects=objects, owner=lease["owner"], beat=lease["beat"], lease_s=lease["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()


def entry_of(key: str, data: bytes) -> Entry:
    """What a ledger says of an object with these bytes."""
    return Entry(key=key, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def to_json(features: FeaturePlan, ledger: Ledger) -> bytes:
    """The ledger's file."""
    teacher = {"name": features.teacher.name, "digest": features.teacher.digest} if features.teacher else None
    taps = {tap: [asdict(entry) for entry in entries] for tap, entries in ledger.items()}
    content = {"format": FORMAT, "teacher": teacher, "crops": sum(map(len, features.shards)), "taps": taps}
    return json.dumps({**content, "shards": list(features.units)}, sort_keys=True).encode()


def read_ledger(store: Store, features: FeaturePlan) -> Ledger | None:
    """The plan's ledger, None if it was not written yet. Raises FeatureError if it is not this plan's, StoreError."""
    try:
        text = store.read(features.ledger)
    except FileNotFoundError:
        return None
    try:
        ledger = from_json(text)
        for tap, keys in zip(features.taps, features.keys, strict=True):
            if tuple(entry.key for entry in ledger[tap]) != keys:
                raise ValueError(f"other keys for tap {tap}")
    except (ValueError, KeyError) as error:
        raise _not_a_ledger(store, features, error) from error
    return ledger


def from_json(text: bytes) -> Ledger:
    """The ledger in a file. Raises ValueError if the bytes are not a ledger."""
    try:
        content: dict[str, Any] = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {shown(content['format'])}, not {FORMAT}")
        ledger = {tap: tuple(Entry(**entry) for entry in entries) for tap, entries in content["taps"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from None
    for entry in (entry for entries in ledger.values() for entry in entries):
        if not (isinstance(entry.key, str) and isinstance(entry.sha256, str) and isinstance(entry.bytes, int)):
            raise ValueError(f"an entry {asdict(entry)}")
    return ledger


def _not_a_ledger(store: Store, features: FeaturePlan, error: Exception) -> FeatureError:
    return FeatureError(f"{store.url}/{features.ledger}: not the ledger of {features.title} ({error})")


def publish_ledger(store: Store, features: FeaturePlan, made: Mapping[int, Mapping[Tap, Entry]]) -> None:
    """Writes the ledger, after all objects. In an existing ledger only the shards that were made again change.

    Args:
        made: shard -> tap -> its object, of the shards that this fill has filled.

    Raises StoreError, also if other processes keep changing it, and FeatureError for a file that is not this ledger.
    """
    if not made:
        return
    for _ in tries(f"{store.url}/{features.ledger}"):
        try:
            stored = store.read_stamped(features.ledger)
        except FileNotFoundError:
            if store.publish(features.ledger, to_json(features, _merged(features, None, made))) is not None:
                return
            continue
        try:
            old = from_json(stored.data)
            new = _merged(features, old, made)
        except (ValueError, KeyError, IndexError) as error:
            raise _not_a_ledger(store, features, error) from error
        if new == old or store.replace_if(features.ledger, to_json(features, new), stored.tag) is not None:
            return


def _merged(features: FeaturePlan, old: Ledger | None, made: Mapping[int, Mapping[Tap, Entry]]) -> Ledger:
    return {
        tap: tuple(
            made[shard][tap] if shard in made or old is None else old[tap][shard]
            for shard in range(len(features.shards))
        )
        for tap in features.taps
    }
