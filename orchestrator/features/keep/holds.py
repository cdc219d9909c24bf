"""Who uses a feature plan: notes in the store that a sweep renews, so that nobody prunes what it reads.

    holds/PLAN/HOLDER.json  {"format": 1, "holder", "host", "ledger", "source", "title", "teacher", "taps", "crops",
                             "shards", "token": of the process, "interval_s", "beat", "ended"}

A hold is written before its holder reads the store. A prune takes ledgers and record entries away before it reads the
holds, so it sees the hold of everyone who still saw those. A hold is live until it has ended or was not renewed for
`SILENT` intervals, by the store's clock. An ended one stays: its age says when the plan was last used.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from orchestrator.features.format.key import FeaturePlan
from orchestrator.store.errors import Stamped, StoreError
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store

FORMAT = 1
INTERVAL_S = 60.0
SILENT = 10  # intervals: several renewals may fail, and a server may be away for minutes
AWAY = (StoreError, OSError)  # raised while a store cannot be used


class Hold:
    """Feature plans in use, while the context lasts; renewed from a thread of its own.

    Entering raises StoreError (or OSError on `file://`) if the store cannot be written. After that the store may be
    unreachable: renewals are tried again, and nothing is raised inside the context.

    Args:
        holder: a name that stays the same when the holder is started again, such as its run folder's URL. If one
            holder runs twice, the hold is the later process's; if that ends first, the earlier one takes over.
        interval_s: seconds between two renewals.
    """

    def __init__(
        self, store: Store, feature_plans: Iterable[FeaturePlan], holder: str, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._store, self._interval_s, self._beat = store, interval_s, 0
        self._token = secrets.token_hex(8)
        file = f"{hashlib.sha256(holder.encode()).hexdigest()[:16]}.json"
        self._notes: dict[str, dict[str, Any]] = {
            f"holds/{features.part_digest(part)}/{file}": {
                "format": FORMAT,
                "holder": holder,
                "host": socket.gethostname(),
                "ledger": features.ledger(part),
                "source": features.source,
                "title": features.title,
                "teacher": features.teacher.name if features.teacher else None,
                "taps": features.taps,
                "crops": sum(len(features.shards[shard]) for shard in shards),
                "shards": len(shards),
                "token": self._token,
                "interval_s": interval_s,
            }
            for features in feature_plans
            for part, shards in enumerate(features.parts)
        }
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="hold", daemon=True)

    def __enter__(self) -> Hold:
        try:
            for name in self._notes:
                self._store.replace(name, self._written(name, ended=False))
        except AWAY:
            self._finish()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._finish()

    def _renew(self) -> None:
        while not self._end.wait(self._interval_s):
            self._beat += 1
            for name in self._notes:
                with suppress(*AWAY):
                    self._stamp(name, ended=False)

    def _finish(self) -> None:
        for name in self._notes:
            with suppress(*AWAY):  # then it expires
                self._stamp(name, ended=True)

    def _stamp(self, name: str, *, ended: bool) -> None:
        data = self._written(name, ended=ended)
        try:
            stored = self._store.read_stamped(name)
        except FileNotFoundError:  # pruned while this process was suspended
            if not ended:
                self._store.publish(name, data)
            return
        hold = _stored_hold(name, stored)
        if hold.token == self._token or not hold.live:
            self._store.replace_if(name, data, stored.tag)

    def _written(self, name: str, *, ended: bool) -> bytes:
        return json.dumps({**self._notes[name], "beat": self._beat, "ended": ended}, sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class StoredHold:
    """A hold, read from the store. All texts of one that cannot be read are empty."""

    name: str  # in the store
    plan: str  # digest of the feature plan
    source: str
    teacher: str  # its name; empty for pixels
    taps: tuple[str, ...]
    crops: int
    shards: int
    holder: str
    host: str
    token: str  # of the process that wrote it
    tag: str  # changes when the hold is written again
    age_s: float  # by the store's clock
    live: bool


def read_holds(store: Store) -> list[StoredHold]:
    """All holds, ended ones too, sorted by name. Raises StoreError."""

    def read(name: str) -> StoredHold | None:
        try:
            return _stored_hold(name, store.read_stamped(name))
        except FileNotFoundError:  # removed since it was listed
            return None

    return [hold for _, hold in in_threads(read, store.list("holds")) if hold is not None]


def _stored_hold(name: str, stored: Stamped) -> StoredHold:
    """The hold in a file. One that cannot be read was written by another version: it counts as a hold on everything."""
    note: dict[str, Any] = {}
    taps: tuple[str, ...] = ()
    interval_s, crops, shards = INTERVAL_S, 0, 0
    with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        content = json.loads(stored.data)
        if content["format"] == FORMAT:
            taps, interval_s = tuple(map(str, content.get("taps", ()))), float(content.get("interval_s", INTERVAL_S))
            crops, shards = int(content.get("crops", 0)), int(content.get("shards", 0))
            note = content
    ended = note.get("ended") is True
    return StoredHold(
        name=name,
        plan=name.split("/")[1],
        source=str(note.get("source") or ""),
        teacher=str(note.get("teacher") or ""),
        taps=taps,
        crops=crops,
        shards=shards,
        holder=str(note.get("holder") or ""),
        host=str(note.get("host") or ""),
        token=str(note.get("token") or ""),
        tag=stored.tag,
        age_s=stored.age_s,
        live=not ended and stored.age_s <= SILENT * interval_s,
    )
