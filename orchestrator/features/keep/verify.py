"""Checks that all objects of a store's ledgers exist and are whole, by reading every one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import FeatureError, Tap
from orchestrator.features.format.ledger import Entry, entry_of, from_json
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.keep.evict import evict
from orchestrator.features.keep.inventory import StoredPlan, read_inventory
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store

PROGRESS_S = 3.0


@dataclass(frozen=True, kw_only=True)
class _Object:
    tap: Tap
    shard: int
    name: str
    entry: Entry  # of the ledger


@dataclass(frozen=True, kw_only=True)
class _Checked:
    fault: str | None
    crops: int  # that decode
    bytes: int


def verify(store: Store, *, source: str | None = None, drop: bool = False, say: Callable[[str], None] = print) -> int:
    """The number of objects and ledgers that are damaged or missing; each is named in one line.

    Args:
        source: a teacher's name or digest, or `pixels`; None: all.
        drop: remove damaged objects, and what their shards' records say of them: the next fill makes them again.
            Without it nothing is written.

    Raises FeatureError if there is no such source; StoreError.
    """
    inventory = read_inventory(store if drop else store.reading())
    sources, faults = inventory.sources(source), len(inventory.unreadable)
    for name, why in inventory.unreadable.items():
        say(f"{store.url}/{name}: {why}")
    plans = [plan for plan in inventory.plans.values() if plan.features.source in sources]
    progress = _Progress(len({(stored.name, stored.entry) for plan in plans for stored in _objects(plan)}), say)
    checked: dict[tuple[str, Entry], _Checked] = {}  # an object that several ledgers list is read once
    for plan in plans:
        todo = [stored for stored in _objects(plan) if (stored.name, stored.entry) not in checked]
        for stored, answer in in_threads(lambda stored: _check(store, stored), todo):
            checked[stored.name, stored.entry] = answer
            progress.count(answer)
            if answer.fault is not None:
                faults += 1
                say(f"{store.url}/{stored.name}: tap {stored.tap}, shard {stored.shard}: {answer.fault}")
                if drop:
                    say(f"{store.url}/{stored.name}: {_drop(store, plan, stored)}")
        for tap in plan.features.taps:
            answers = [checked[stored.name, stored.entry] for stored in _objects(plan) if stored.tap == tap]
            crops = sum(answer.crops for answer in answers)
            if crops != plan.crops and not any(answer.fault for answer in answers):
                faults += 1
                say(f"{store.url}/{plan.name}: tap {tap}: {crops:,} crops in its objects, {plan.crops:,} in the ledger")
    progress.say(last=True)
    return faults


def _objects(plan: StoredPlan) -> Iterator[_Object]:
    for tap, shard, name in plan.objects():
        yield _Object(tap=tap, shard=shard, name=name, entry=plan.ledger[tap][shard])


def _check(store: Store, stored: _Object) -> _Checked:
    try:
        data = store.read(stored.name)
    except FileNotFoundError:
        return _Checked(fault="the object is missing", crops=0, bytes=0)
    fault, crops = None, 0
    if len(data) != stored.entry.bytes:
        fault = f"{len(data):,} bytes, {stored.entry.bytes:,} in the ledger"
    elif entry_of(stored.entry.key, data) != stored.entry:
        fault = f"{len(data):,} bytes whose digest is not the ledger's"
    else:
        try:
            opened = StoredTap(stored.tap, MemoryBlob(data))
            for row in range(len(opened)):
                opened.row(row)
            crops = len(opened)
        except FeatureError as error:
            fault = str(error).removeprefix(f"tap {stored.tap}: ")
    return _Checked(fault=fault, crops=crops, bytes=len(data))


def _drop(store: Store, plan: StoredPlan, stored: _Object) -> str:
    """Removes a damaged object and says what became of it.

    It is checked again while its shard is leased, since a fill may have made it again in the meantime.
    """
    eviction = evict(store, plan.features.record(stored.shard), {stored.entry.key})
    if eviction is None:
        return "stays: its shard is being filled"
    try:
        entry = from_json(store.read(plan.name))[stored.tap][stored.shard]
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        entry = stored.entry
    now = _check(store, _Object(tap=stored.tap, shard=stored.shard, name=stored.name, entry=entry))
    if now.fault is None:
        eviction.finish({entry.key: entry})
        return "stays: it was made anew meanwhile"
    done = eviction.delete([stored.name])
    eviction.finish()
    return "removed; the next fill makes it anew" if done else "stays: its shard's lease is nearly over, try again"


class _Progress:
    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total, self._say, self._done, self._bytes = total, say, 0, 0
        self._began = self._spoken = time.monotonic()

    def count(self, answer: _Checked) -> None:
        self._done += 1
        self._bytes += answer.bytes
        self.say()

    def say(self, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._spoken >= PROGRESS_S:
            self._spoken = now
            rate = self._bytes / 1e6 / max(now - self._began, 1e-9)
            self._say(f"verify: {self._done:,}/{self._total:,} objects, {rate:.1f} MB/s")
