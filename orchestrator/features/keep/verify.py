"""Whether all objects of a store's ledgers are there and whole, by reading every one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import FeatureError, Tap
from orchestrator.features.format.ledger import Entry, entry_of, from_json
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.keep.evict import evict
from orchestrator.features.keep.inventory import StoredPlan, survey
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
    """How much is damaged or missing; each object of it is named in one line.

    Args:
        source: a teacher's name or digest, or `pixels`; None: all.
        drop: remove damaged objects, and what their shards' records say of them: the next fill makes them anew.

    Raises FeatureError if there is no such source; StoreError.
    """
    found = survey(store)
    sources, faults = found.sources(source), len(found.unreadable)
    for name, why in found.unreadable.items():
        say(f"{store.url}/{name}: {why}")
    plans = [plan for plan in found.plans.values() if plan.features.source in sources]
    progress = _Progress(len({(each.name, each.entry) for plan in plans for each in _objects(plan)}), say)
    checked: dict[tuple[str, Entry], _Checked] = {}  # an object that several ledgers list is read once
    for plan in plans:
        todo = [each for each in _objects(plan) if (each.name, each.entry) not in checked]
        for each, answer in in_threads(lambda each: _check(store, each), todo):
            checked[each.name, each.entry] = answer
            progress.count(answer)
            if answer.fault is not None:
                faults += 1
                say(f"{store.url}/{each.name}: tap {each.tap}, shard {each.shard}: {answer.fault}")
                if drop:
                    say(f"{store.url}/{each.name}: {_drop(store, plan, each)}")
        for tap in plan.features.taps:
            answers = [checked[each.name, each.entry] for each in _objects(plan) if each.tap == tap]
            crops = sum(answer.crops for answer in answers)
            if crops != plan.crops and not any(answer.fault for answer in answers):
                faults += 1
                say(f"{store.url}/{plan.name}: tap {tap}: {crops:,} crops in its objects, {plan.crops:,} in the ledger")
    progress.say(last=True)
    return faults


def _objects(plan: StoredPlan) -> Iterator[_Object]:
    for tap, shard, name in plan.objects():
        yield _Object(tap=tap, shard=shard, name=name, entry=plan.ledger[tap][shard])


def _check(store: Store, each: _Object) -> _Checked:
    try:
        data = store.read(each.name)
    except FileNotFoundError:
        return _Checked(fault="the object is missing", crops=0, bytes=0)
    fault, crops = None, 0
    if len(data) != each.entry.bytes:
        fault = f"{len(data):,} bytes, {each.entry.bytes:,} in the ledger"
    elif entry_of(each.entry.key, data) != each.entry:
        fault = f"{len(data):,} bytes whose digest is not the ledger's"
    else:
        try:
            stored = StoredTap(each.tap, MemoryBlob(data))
            for row in range(len(stored)):
                stored.row(row)
            crops = len(stored)
        except FeatureError as error:
            fault = str(error).removeprefix(f"tap {each.tap}: ")
    return _Checked(fault=fault, crops=crops, bytes=len(data))


def _drop(store: Store, plan: StoredPlan, each: _Object) -> str:
    """What became of a damaged object. It is looked at again while nobody can make it anew: somebody may have."""
    eviction = evict(store, plan.features.record(each.shard), {each.entry.key})
    if eviction is None:
        return "stays: its shard is being filled"
    try:
        entry = from_json(store.read(plan.name))[each.tap][each.shard]
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        entry = each.entry
    now = _check(store, _Object(tap=each.tap, shard=each.shard, name=each.name, entry=entry))
    if now.fault is None:
        eviction.finish({entry.key: entry})
        return "stays: it was made anew meanwhile"
    done = eviction.delete([each.name])
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
