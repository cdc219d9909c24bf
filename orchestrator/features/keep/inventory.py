"""What a store holds: ledgers, holds, and the sizes of objects, for listing, checking and pruning.

Sizes come from one listing for each folder. Ledgers and holds are read, several at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from orchestrator.features.format.key import FeatureError, Source, Tap, TeacherWeights
from orchestrator.features.format.ledger import Ledger, from_json
from orchestrator.features.keep.holds import StoredHold, read_holds
from orchestrator.spec.messages import shown
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StoredFeatures(Source):
    """The names in the store of what a ledger lists: it has neither a shard's crops nor the order of the taps."""

    ledger: Ledger
    units: tuple[str, ...]  # [shard]

    def key(self, tap: Tap, shard: int) -> str:
        """As of a `FeaturePlan`."""
        return self.ledger[tap][shard].key

    def object(self, tap: Tap, shard: int) -> str:
        """As of a `FeaturePlan`."""
        return self.object_of(tap, self.key(tap, shard))

    def record(self, shard: int) -> str:
        """As of a `FeaturePlan`."""
        return self.record_of(self.units[shard])


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """A feature plan, or a part of a large one, read from its ledger."""

    digest: str
    features: StoredFeatures
    ledger: Ledger
    crops: int
    age_s: float  # of the ledger

    @property
    def name(self) -> str:
        """The ledger's name in the store."""
        return f"ledgers/{self.digest}.json"

    @property
    def label(self) -> str:
        """For messages."""
        return f"{short(self.digest)} ({source_label(self.features)})"

    def objects(self) -> Iterator[tuple[Tap, int, str]]:
        """Tap, shard and name of each object."""
        for tap in self.features.taps:
            for shard in range(len(self.features.units)):
                yield tap, shard, self.features.object(tap, shard)

    @cached_property
    def names(self) -> frozenset[str]:
        """Names in the store of all objects."""
        return frozenset(name for _, _, name in self.objects())


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What is in a store, at nearly one moment: listings are made one after another."""

    plans: dict[str, StoredPlan]  # those with a ledger, by digest
    unreadable: dict[str, str]  # name of a ledger that cannot be read -> why
    holds: tuple[StoredHold, ...]
    sizes: dict[str, int]  # bytes of the objects, by name
    records: tuple[str, ...]  # names

    @cached_property
    def listed(self) -> Counter[str]:
        """The number of ledgers that list an object, by its name."""
        return Counter(name for plan in self.plans.values() for name in plan.names)

    @cached_property
    def loose(self) -> dict[str, int]:
        """Bytes of the objects that no ledger lists, by name."""
        return {name: size for name, size in self.sizes.items() if name not in self.listed}

    @cached_property
    def known_records(self) -> set[str]:
        """Names of the shard records that belong to a ledger."""
        plans = [plan.features for plan in self.plans.values()]
        return {features.record(shard) for features in plans for shard in range(len(features.units))}

    def holds_of(self, plan: str) -> list[StoredHold]:
        """The holds of the feature plan with this digest."""
        return [hold for hold in self.holds if hold.plan == plan]

    def sources(self, wanted: str | None) -> set[str]:
        """Source folders of a teacher (its name, or 8 digits or more of its digest) or of `pixels`; None: all.

        Raises FeatureError if the store knows none.
        """
        names: dict[str, set[str]] = {}
        for features in (plan.features for plan in self.plans.values()):
            names.setdefault(features.source, set()).update({features.teacher.name} if features.teacher else ())
        for hold in self.holds:
            names.setdefault(hold.source, set()).update({hold.teacher} - {""})
        for name in (*self.sizes, *self.records):
            names.setdefault(name.split("/")[1], set())
        names.pop("", None)
        if wanted is None:
            return {*names}
        sources = {source for source in names if wanted in (source, *names[source])}
        sources |= {source for source in names if len(wanted) >= 8 and source.startswith(wanted[:16])}
        if not sources:
            known = [f"{' or '.join(sorted(names[source]))} {source}".strip() for source in sorted(names)]
            raise FeatureError(f"source: {shown(wanted)} is not in the store; there are {', '.join(known) or 'none'}")
        return sources

    def unused_s(self, plan: StoredPlan) -> float:
        """Seconds since its newest hold was written, or its ledger if that is newer."""
        return min([plan.age_s, *(hold.age_s for hold in self.holds_of(plan.digest))])


def read_inventory(store: Store) -> Inventory:
    """Reads the holds first: whatever is filled after that has a hold that is new or written again.

    Raises StoreError.
    """
    holds = read_holds(store)
    plans, unreadable = {}, {}
    for name, plan in in_threads(lambda name: _stored_plan(store, name), store.list("ledgers")):
        if isinstance(plan, StoredPlan):
            plans[plan.digest] = plan
        elif plan is not None:
            unreadable[name] = plan
    return Inventory(
        plans=plans,
        unreadable=unreadable,
        holds=tuple(holds),
        sizes=store.sizes("features"),
        records=tuple(store.list("shards")),
    )


def short(plan: str) -> str:
    """The start of a plan's digest, with its part."""
    digest, dash, part = plan.partition("-")
    return f"{digest[:12]}{dash}{part}"


def source_label(features: Source) -> str:
    """Where the features come from, for people: `pixels`, or the teacher's name and the start of its digest."""
    return f"{features.teacher.name} {features.teacher.digest[:12]}" if features.teacher else "pixels"


def megabytes(size: int) -> str:
    """Bytes in MB (10^6), such as `1,234.5`."""
    return f"{size / 1e6:,.1f}"


def age(seconds: float) -> str:
    """Seconds as an age, such as `3 h ago`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _stored_plan(store: Store, name: str) -> StoredPlan | str | None:
    """The ledger's plan, or why it cannot be read; None if it was removed since it was listed."""
    try:
        stored = store.read_stamped(name)
    except FileNotFoundError:
        return None
    try:
        ledger, content = from_json(stored.data), json.loads(stored.data)
        units, teacher = tuple(map(str, content["shards"])), content["teacher"]
        if not ledger or any(len(entries) != len(units) for entries in ledger.values()):
            raise ValueError("taps of another number of shards")
        weights = teacher and TeacherWeights(name=str(teacher["name"]), path="", digest=str(teacher["digest"]))
        features = StoredFeatures(teacher=weights, taps=tuple(ledger), ledger=ledger, units=units)
        return StoredPlan(
            digest=PurePosixPath(name).stem,
            features=features,
            ledger=ledger,
            crops=int(content["crops"]),
            age_s=stored.age_s,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return f"not a ledger of this version ({' '.join(str(error).split())})"
