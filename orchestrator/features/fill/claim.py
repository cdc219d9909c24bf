"""The right to fill one shard: at most one process holds it, and it expires if its holder does not renew it in time.

It is the `lease` of the shard's record. Taking, renewing and ending it are conditional writes, and its age is measured
by the store's clock, so the clocks of the fillers need not agree. A holder that was paused for longer than its lease
finds it lost. It may still publish objects, but those are create-only writes, which change nothing.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from orchestrator.features.format.ledger import Entry, ShardRecord
from orchestrator.store.errors import Stamped, StoreError
from orchestrator.store.store import Store

LEASE_S = 60.0


class Claim:
    """A context in which a thread renews the lease; an exception inside frees the shard at once.

    Attributes:
        before: the record before the claim; an empty one if there was none.
        fresh: there was no record, so nobody has published anything of this shard.
        lost: somebody else holds the shard now.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        before: ShardRecord | None,
        mine: ShardRecord,
        tag: str,
        lease_s: float,
        written_at: float,
    ) -> None:
        self.before, self.fresh, self.lost = before or ShardRecord(), before is None, False
        self._store, self._name, self._mine, self._tag, self._lease_s = store, name, mine, tag, lease_s
        self._written_at = written_at  # seconds, monotonic; not later than the store wrote it
        self._write, self._end = threading.Lock(), threading.Event()
        every_s = lease_s / 3
        self._thread = threading.Thread(target=_keep, args=(weakref.ref(self), self._end, every_s), daemon=True)

    def __enter__(self) -> Claim:
        try:
            self._thread.start()
        except BaseException:  # Ray cancels a task by KeyboardInterrupt, at any line
            self._end.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if kind is not None and self._mine.owner is not None:
            with suppress(StoreError):  # then the lease expires
                self._change(replace(self._mine, owner=None))

    def finish(self, objects: Mapping[str, Entry]) -> bool:
        """Records the shard's objects and frees it. False if the claim was lost before."""
        with self._write:
            self._end.set()
            return self._change(ShardRecord(objects=dict(objects)))

    def _renew(self) -> None:
        with self._write:
            if self._end.is_set():
                return
            with suppress(
                StoreError
            ):  # the store cannot be reached; if that lasts, the next renewal finds the lease lost
                self._change(replace(self._mine, beat=self._mine.beat + 1))

    def _change(self, record: ShardRecord) -> bool:
        if self.lost:
            return False
        data, asked_at = record.to_json(), time.monotonic()
        tag = self._store.replace_if(self._name, data, self._tag)
        if tag is None:  # the lease is lost, or only the answer to our write
            stored = _stamped(self._store, self._name)
            # After a lease's silence a record without an owner may be another process's, with the same content.
            ours = record.owner is not None or asked_at - self._written_at <= self._lease_s
            tag = stored.tag if ours and stored is not None and stored.data == data else None
        self.lost = tag is None
        if tag is not None:
            self._mine, self._tag, self._written_at = record, tag, asked_at
        return not self.lost


def claim(store: Store, name: str, owner: str, lease_s: float = LEASE_S) -> Claim | None:
    """Claims a shard by the name of its record; None while another owner fills it.

    A lease of the same `owner` is taken over at once: two calls with one owner must not run at the same time.
    Raises FeatureError: a record of another format; StoreError.
    """
    mine, asked_at = ShardRecord(owner=owner, lease_s=lease_s), time.monotonic()
    tag = store.publish(name, mine.to_json())
    if tag is not None:
        return Claim(store, name, None, mine, tag, lease_s, asked_at)
    stored = _stamped(store, name)
    if stored is None:
        return None
    before = ShardRecord.from_json(stored.data)
    if before.live(stored.age_s) and before.owner != owner:
        return None
    mine = ShardRecord(objects=before.objects, owner=owner, beat=before.beat + 1, lease_s=lease_s)
    asked_at = time.monotonic()
    tag = store.replace_if(name, mine.to_json(), stored.tag)
    return None if tag is None else Claim(store, name, before, mine, tag, lease_s, asked_at)


def _keep(claim: weakref.ref[Claim], end: threading.Event, every_s: float) -> None:
    """Renews until the end, or until the claim is deleted: a worker may outlive a task that was cancelled."""
    while not end.wait(every_s):
        alive = claim()
        if alive is None or alive.lost:
            return
        alive._renew()
        del alive


def read_record(store: Store, name: str) -> ShardRecord:
    """A shard's record, an empty one if there is none. Writes nothing. Raises FeatureError, StoreError."""
    try:
        return ShardRecord.from_json(store.read(name))
    except FileNotFoundError:
        return ShardRecord()


def _stamped(store: Store, name: str) -> Stamped | None:
    try:
        return store.read_stamped(name)
    except FileNotFoundError:
        return None
