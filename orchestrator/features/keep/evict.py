"""Removing objects of one shard from the store, so that no filler relies on what is about to be deleted.

Their entries are first taken out of the shard's record, under its lease: a filler that arrives then finds neither an
entry nor a free shard, and waits. Then the holds are checked (prune.py), and only then objects are deleted. The process
may die after any step: at worst an object stays that no record lists, and the next fill uses it if it is whole.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from orchestrator.features.fill.claim import LEASE_S
from orchestrator.features.format.ledger import Entry, ShardRecord
from orchestrator.store.store import Store


class Eviction:
    """Entries taken out of a shard's record; the shard is leased until `finish` or `give_back`.

    Attributes:
        before: the record before the eviction.
    """

    def __init__(self, store: Store, name: str, before: ShardRecord, mine: ShardRecord, tag: str) -> None:
        self.before = before
        self._store, self._name, self._mine, self._tag = store, name, mine, tag
        self._began = time.monotonic()

    def delete(self, objects: Iterable[str]) -> int:
        """Deletes objects by name; returns how many. It stops after half of the lease, before the lease can expire."""
        done = 0
        for name in objects:
            if self._late():
                break
            self._store.delete(name)
            done += 1
        return done

    def give_back(self) -> None:
        """Restores the record."""
        self.finish(self.before.objects)

    def finish(self, back: Mapping[str, Entry] | None = None) -> None:
        """Frees the shard, with the entries `back` in its record again; a record without entries is deleted."""
        rest = {**self._mine.objects, **(back or {})}
        if rest or self._late():
            free = replace(self.before, objects=rest, owner=None, beat=0)
            self._store.replace_if(self._name, free.to_json(), self._tag)
        else:
            self._store.delete(self._name)

    def _late(self) -> bool:
        return time.monotonic() - self._began > LEASE_S / 2


def evict(store: Store, name: str, keys: Collection[str] | None) -> Eviction | None:
    """Takes the entries of these keys (None: all) out of a shard's record. None while a process fills the shard."""
    mine = ShardRecord(owner=f"housekeeping-{secrets.token_hex(8)}", lease_s=LEASE_S)
    tag = store.publish(name, mine.to_json())
    if tag is not None:  # there was no record; this one keeps fillers away like any other
        return Eviction(store, name, ShardRecord(), mine, tag)
    try:
        stored = store.read_stamped(name)
    except FileNotFoundError:
        return None
    before = ShardRecord.from_json(stored.data)
    if before.live(stored.age_s):
        return None
    rest = {} if keys is None else {key: entry for key, entry in before.objects.items() if key not in keys}
    mine = replace(mine, objects=rest, beat=before.beat + 1)
    tag = store.replace_if(name, mine.to_json(), stored.tag)
    return None if tag is None else Eviction(store, name, before, mine, tag)
