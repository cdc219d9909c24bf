"""The two kinds of JSON files beside the objects: a record for each shard, and a ledger for each feature plan.

A plan of more than `LISTED_CROPS` crops has a ledger for each part, `SHARDS_A_PART` shards, and PLAN-PART in its name.

    shards/SOURCE/UNIT.json  {"format": 2, "objects": {key: {"sha256", "bytes"}},
                              "lease": {"owner", "beat", "seconds"} or null}
    ledgers/PLAN.json        {"format": 2, "teacher": {"name", "digest"} or null, "crops": how many,
                              "shards": [unit, ...], "taps": {tap: [{"key", "sha256", "bytes"}, one a shard]}}

A record says who fills a shard and which of its objects exist; it changes by conditional writes only (claim.py). A
ledger is written last, when all its objects are published; readers check the objects against its digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

import numpy as np

from orchestrator.features.format.key import FeatureError, FeaturePlan, Tap, plan_digest
from orchestrator.spec.messages import shown
from orchestrator.store.store import Store
from orchestrator.store.tries import tries

FORMAT = 2
HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object that was published."""

    key: str
    sha256: str  # of the object's bytes
    bytes: int


class Entries(Sequence[Entry]):
    """Entries in columns, 72 bytes each: every rank has those of all shards that it reads.

    Raises ValueError: an entry's key or digest is not SHA-256, or its bytes are no number.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            hexadecimal = all(isinstance(text, str) and HEX.fullmatch(text) for text in (entry.key, entry.sha256))
            if not hexadecimal or type(entry.bytes) is not int or not 0 <= entry.bytes < 2**63:
                raise ValueError(f"an entry {asdict(entry)}")
        self._texts = np.frombuffer(bytes.fromhex("".join(entry.key + entry.sha256 for entry in entries)), "V32")
        self._bytes = np.array([entry.bytes for entry in entries], np.int64)

    def __len__(self) -> int:
        return len(self._bytes)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(len(self))[index])
        key, sha256 = (self._texts[2 * index + of].tobytes().hex() for of in (0, 1))
        return Entry(key=key, sha256=sha256, bytes=int(self._bytes[index]))


Ledger = dict[Tap, Entries]  # of a part


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


def to_json(features: FeaturePlan, shards: range, ledger: Mapping[Tap, Sequence[Entry]]) -> bytes:
    """The ledger's file, of some shards of a plan."""
    teacher = {"name": features.teacher.name, "digest": features.teacher.digest} if features.teacher else None
    taps = {tap: [asdict(entry) for entry in entries] for tap, entries in ledger.items()}
    crops = sum(len(features.shards[shard]) for shard in shards)
    content = {"format": FORMAT, "teacher": teacher, "crops": crops, "taps": taps}
    return json.dumps({**content, "shards": [features.unit(shard) for shard in shards]}, sort_keys=True).encode()


def read_ledger(store: Store, features: FeaturePlan, part: int = 0) -> Ledger | None:
    """A part's ledger, None if it was not written yet. Raises FeatureError if it is not this plan's, StoreError."""
    try:
        text = store.read(features.ledger(part))
    except FileNotFoundError:
        return None
    try:
        ledger = from_json(text)
        if any(len(ledger[tap]) != len(features.parts[part]) for tap in features.taps):
            raise ValueError("another number of shards")
        keys = [[entry.key for entry in ledger[tap]] for tap in features.taps] if features.crops.listed else []
        if keys and plan_digest(features.taps, keys) != features.digest:
            raise ValueError("other keys")
    except (ValueError, KeyError) as error:
        raise _not_a_ledger(store, features, part, error) from error
    return ledger


class Ledgers:
    """The entries of a plan, whose ledgers are read when they are asked for. Several threads may ask.

    Raises FeatureError: the first ledger is missing, or by `entry` another one.
    """

    def __init__(self, store: Store, features: FeaturePlan) -> None:
        self._store, self._features = store, features
        self._parts: dict[int, Ledger] = {0: self._read(0)}

    def entry(self, tap: Tap, shard: int) -> Entry:
        """What the ledger says of an object."""
        part = next(part for part, shards in enumerate(self._features.parts) if shard in shards)
        if part not in self._parts:
            self._parts[part] = self._read(part)
        return self._parts[part][tap][shard - self._features.parts[part].start]

    @property
    def stored_bytes(self) -> int:
        """Of all objects, by the first part's: other parts are not read for it."""
        entries = [entry for of_tap in self._parts[0].values() for entry in of_tap]
        first, shards = len(self._features.parts[0]), len(self._features.shards)
        return sum(entry.bytes for entry in entries) * shards // max(1, first)

    def forget(self) -> None:
        """Ledgers are read again: an object may have been made again."""
        self._parts = {}

    def _read(self, part: int) -> Ledger:
        ledger = read_ledger(self._store, self._features, part)
        if ledger is None:
            missing = f"{self._features.ledger(part)} is missing"
            raise FeatureError(f"{self._store.url}: {self._features.title} is not filled in ({missing})")
        return ledger


def from_json(text: bytes) -> Ledger:
    """The ledger in a file. Raises ValueError if the bytes are not a ledger."""
    try:
        content: dict[str, Any] = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {shown(content['format'])}, not {FORMAT}")
        return {tap: Entries([Entry(**entry) for entry in entries]) for tap, entries in content["taps"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from None


def _not_a_ledger(store: Store, features: FeaturePlan, part: int, error: Exception) -> FeatureError:
    return FeatureError(f"{store.url}/{features.ledger(part)}: not the ledger of {features.title} ({error})")


def publish_ledger(store: Store, features: FeaturePlan, made: Mapping[int, Mapping[Tap, Entry]]) -> None:
    """Writes the ledgers of shards, after all objects. In an existing one only the shards that were made again change.

    Args:
        made: shard -> tap -> its object, of the shards that this fill has filled; all of a part that has no ledger yet.

    Raises StoreError, also if other processes keep changing one, and FeatureError for a file that is not this ledger.
    """
    for part, shards in enumerate(features.parts):
        of_part = {shard: made[shard] for shard in shards if shard in made}
        if of_part:
            _publish_part(store, features, part, of_part)


def _publish_part(store: Store, features: FeaturePlan, part: int, made: Mapping[int, Mapping[Tap, Entry]]) -> None:
    name, shards = features.ledger(part), features.parts[part]

    def merged(old: Ledger | None) -> dict[Tap, list[Entry]]:
        return {
            tap: [
                made[shard][tap] if shard in made or old is None else old[tap][shard - shards.start] for shard in shards
            ]
            for tap in features.taps
        }

    for _ in tries(f"{store.url}/{name}"):
        try:
            stored = store.read_stamped(name)
        except FileNotFoundError:
            if store.publish(name, to_json(features, shards, merged(None))) is not None:
                return
            continue
        try:
            old = from_json(stored.data)
            new = merged(old)
        except (ValueError, KeyError, IndexError) as error:
            raise _not_a_ledger(store, features, part, error) from error
        same = all(list(old[tap]) == entries for tap, entries in new.items())
        if same or store.replace_if(name, to_json(features, shards, new), stored.tag) is not None:
            return
