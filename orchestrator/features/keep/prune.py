"""Removing what nobody uses, safely while sweeps start at the same time.

A sweep writes its holds, then reads ledgers, then shard records. A prune goes the other way round: it takes the ledgers
away, reads the holds, takes entries out of records (evict.py), reads the holds again, and only then deletes objects. So
whoever still saw a ledger or a record has a hold that is seen here, and what it needs is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from orchestrator.features.fill.claim import read_record
from orchestrator.features.format.key import FeatureError
from orchestrator.features.format.ledger import ShardRecord
from orchestrator.features.keep.evict import Eviction, evict
from orchestrator.features.keep.holds import StoredHold, read_holds
from orchestrator.features.keep.inventory import Inventory, StoredPlan, age, megabytes, read_inventory
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store

BATCH = 64  # shards between two readings of the holds


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to prune: plans of this age and source, where these are given, and what belongs to no ledger."""

    older_than_s: float | None = None  # seconds since the last use
    source: str | None = None  # a teacher's name or digest, or pixels
    orphans: bool = False

    def __post_init__(self) -> None:
        if self.older_than_s is None and self.source is None and not self.orphans:
            raise ValueError("nothing is chosen")


def prune(store: Store, choice: Choice, *, yes: bool = False, say: Callable[[str], None] = print) -> int:
    """Removes what is chosen and returns the bytes that were removed; without `yes` it writes nothing and only counts.

    Says what goes, and what stays and why.

    Never removed: plans with a live hold, objects that another plan's ledger lists, anything of a source that is being
    filled (a live hold, and no ledger yet), shards with a live lease.

    Raises FeatureError if there is a ledger that cannot be read, since what it lists is not known; StoreError.
    """
    inventory = read_inventory(store if yes else store.reading())
    for name, why in inventory.unreadable.items():
        raise FeatureError(f"{store.url}/{name}: {why}; nothing is removed, since what it lists is not known")
    sources = inventory.sources(choice.source)
    filling = {hold.source: hold for hold in inventory.holds if hold.live and hold.plan not in inventory.plans}
    targets = []
    for plan in inventory.plans.values():
        old = choice.older_than_s is None or inventory.unused_s(plan) >= choice.older_than_s
        by_plan = choice.older_than_s is not None or choice.source is not None
        if not by_plan or not old or plan.features.source not in sources:
            continue
        live = [hold for hold in inventory.holds_of(plan.digest) if hold.live]
        holder = next(iter(live), filling.get(plan.features.source) or filling.get(""))
        if holder is not None:
            say(f"stays: {plan.label}: {_held_by(holder)}")
        else:
            targets.append(plan)
    free = set()
    for source in sorted(sources) if choice.orphans else ():
        if holder := filling.get(source) or filling.get(""):
            say(f"stays: what belongs to no ledger of {source}: {_held_by(holder)}")
        else:
            free.add(source)
    return _Prune(store, inventory, targets, free, say).run(yes)


@dataclass
class _Shard:
    """What to remove of one shard."""

    keys: set[str] | None = field(default_factory=set)  # of its record; None: all
    names: set[str] = field(default_factory=set)  # of objects


class _Prune:
    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        targets: Iterable[StoredPlan],
        orphans_of: set[str],
        say: Callable[[str], None],
    ) -> None:
        self._store, self._inventory, self._say, self._orphans_of = store, inventory, say, orphans_of
        self._targets = {plan.digest: plan for plan in targets}
        self._tags = {hold.name: hold.tag for hold in inventory.holds}
        self._removed: set[str] = set()

    def run(self, yes: bool) -> int:
        kept = self._kept()
        would = set().union(*(plan.names for plan in self._targets.values())) - kept
        verb = "goes" if yes else "would go"
        for plan in self._targets.values():
            going, shared = plan.names - kept, len(plan.names & kept)
            others = f"; {shared:,} that other plans list stay" if shared else ""
            used = f"last used {age(self._inventory.unused_s(plan))}"
            self._say(f"{verb}: {plan.label}, {used}: {self._amount(going)}{others}")
        loose = {name for name in self._inventory.loose if _source(name) in self._orphans_of}
        if self._orphans_of:
            self._say(f"{verb}: what belongs to no ledger: {self._amount(loose)}")
        if not yes:
            self._say(f"nothing was removed; with --yes: {self._amount(would | loose)}")
            return self._bytes(would | loose)
        self._take_ledgers()
        for source in sorted(self._sources() | self._orphans_of):
            self._take_source(source)
        self._take_holds()
        self._say(f"removed: {self._amount(self._removed)}")
        return self._bytes(self._removed)

    def _take_ledgers(self) -> None:
        """Takes all ledgers before any object: what two plans share goes only if both go."""
        for source in self._sources():
            if holder := self._appeared(source):
                self._leave(source, holder)
        ledgers = {plan.digest: ledger for plan, ledger in in_threads(self._take_ledger, self._targets.values())}
        for source in self._sources():
            if holder := self._appeared(source):
                for plan in self._of(source):
                    if (ledger := ledgers[plan.digest]) is not None:
                        self._store.publish(plan.name, ledger)
                self._leave(source, holder)

    def _take_ledger(self, plan: StoredPlan) -> bytes | None:
        try:
            ledger = self._store.read(plan.name)  # read again: a sweep may have mended it
        except FileNotFoundError:
            return None
        self._store.delete(plan.name)
        return ledger

    def _sources(self) -> set[str]:
        return {plan.features.source for plan in self._targets.values()}

    def _of(self, source: str) -> list[StoredPlan]:
        return [plan for plan in self._targets.values() if plan.features.source == source]

    def _leave(self, source: str, holder: StoredHold) -> None:
        for plan in self._of(source):
            del self._targets[plan.digest]
            self._say(f"stays: {plan.label}: {_held_by(holder)}")
        self._orphans_of.discard(source)

    def _take_source(self, source: str) -> None:
        shards, unlisted = self._shards(source)
        work, busy = list(shards.items()), 0
        for start in range(0, len(work), BATCH):
            taken = {}
            for (_, shard), eviction in in_threads(self._evict, work[start : start + BATCH]):
                if eviction is None:
                    busy += 1
                else:
                    taken[eviction] = shard.names
            if holder := self._appeared(source):
                for eviction in taken:
                    eviction.give_back()
                self._say(f"stays: the rest of {source}: {_held_by(holder)}")
                self._orphans_of.discard(source)
                return
            for _ in in_threads(self._delete, taken.items()):
                pass
        if busy:
            self._say(f"stays: {busy:,} shards of {source} that are being filled")
        for start in range(0, len(unlisted), BATCH):
            if self._appeared(source):
                return
            for name, _ in in_threads(self._store.delete, unlisted[start : start + BATCH]):
                self._removed.add(name)

    def _shards(self, source: str) -> tuple[Mapping[str, _Shard], list[str]]:
        """What to remove of each shard, by the name of its record; and objects that no record lists."""
        kept, shards = self._kept(), dict[str, _Shard]()
        for plan in self._of(source):
            for tap, index, name in plan.objects():
                if name not in kept:
                    shard = shards.setdefault(plan.features.record(index), _Shard())
                    assert shard.keys is not None
                    shard.keys.add(plan.features.key(tap, index))
                    shard.names |= {name} & self._inventory.sizes.keys()
        if source not in self._orphans_of:
            return shards, []
        loose: dict[str, set[str]] = {}
        for name in self._inventory.loose:
            if _source(name) == source:
                loose.setdefault(PurePosixPath(name).stem, set()).add(name)
        records = {
            plan.features.record(index)
            for plan in self._inventory.plans.values()
            for index in range(len(plan.features.units))
        }
        of_source = [name for name in self._inventory.records if name.split("/")[1] == source]
        filling, listed = False, set[str]()
        for name, record in in_threads(self._record, of_source):
            filling |= record.owner is not None
            orphaned = record.objects.keys() & loose.keys()
            listed |= orphaned
            if name in records and not orphaned:
                continue
            shard = shards.setdefault(name, _Shard())
            shard.names |= set().union(*(loose[key] for key in orphaned))
            shard.keys = shard.keys | orphaned if name in records and shard.keys is not None else None
        if filling:  # then an object may be published whose record does not list it yet
            return shards, []
        return shards, sorted(name for key in loose.keys() - listed for name in loose[key])

    def _take_holds(self) -> None:
        """Deletes ended holds of plans that are gone: when those were last used means nothing now."""

        def removed(hold: StoredHold) -> bool:
            return hold.plan in self._targets or (
                hold.source in self._orphans_of and hold.plan not in self._inventory.plans
            )

        ended = [hold for hold in read_holds(self._store) if not hold.live and removed(hold)]
        unchanged = [hold.name for hold in ended if hold.tag == self._tags.get(hold.name)]
        for _ in in_threads(self._store.delete, unchanged):
            pass

    def _appeared(self, source: str) -> StoredHold | None:
        """A hold that may need something of the source: live or written again, of no plan that stays anyway."""
        stays = self._inventory.plans.keys() - self._targets.keys()
        for hold in read_holds(self._store):
            moving = hold.live or hold.tag != self._tags.get(hold.name)
            if moving and hold.source in (source, "") and hold.plan not in stays:
                return hold
        return None

    def _kept(self) -> set[str]:
        stay = [plan.names for plan in self._inventory.plans.values() if plan.digest not in self._targets]
        return set().union(*stay)

    def _record(self, name: str) -> ShardRecord:
        return read_record(self._store, name)

    def _evict(self, shard: tuple[str, _Shard]) -> Eviction | None:
        return evict(self._store, shard[0], shard[1].keys)

    def _delete(self, taken: tuple[Eviction, set[str]]) -> None:
        eviction, names = taken
        ordered = sorted(names)
        self._removed.update(ordered[: eviction.delete(ordered)])
        eviction.finish()

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(self._inventory.sizes.get(name, 0) for name in names)

    def _amount(self, names: Iterable[str]) -> str:
        present = [name for name in names if name in self._inventory.sizes]
        return f"{len(present):,} objects, {megabytes(self._bytes(present))} MB"


def _source(name: str) -> str:
    """The source folder in the name of an object."""
    return name.split("/")[1]


def _held_by(hold: StoredHold) -> str:
    return f"{hold.holder or hold.name} holds it" + (f" (on {hold.host})" if hold.host else "")
