"""What `ls` prints of a store: its feature plans, their bytes, who uses them and when they were last used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.features.format.key import Tap
from orchestrator.features.format.ledger import ShardRecord
from orchestrator.features.keep.holds import StoredHold
from orchestrator.features.keep.inventory import (
    Inventory,
    StoredPlan,
    age,
    megabytes,
    read_inventory,
    short,
    source_label,
)
from orchestrator.spec.messages import columns
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Row:
    """One feature plan."""

    plan: str  # digest
    source: str  # pixels, or the teacher's name and digest
    taps: tuple[Tap, ...]
    crops: int
    shards: int
    bytes: int  # of its objects that exist
    shared_bytes: int  # of those, the ones that another plan's ledger lists too
    state: str
    last_used_s: float | None  # age of the newest hold
    held_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Loose:
    """What belongs to no ledger: from fills that are running, and from fills and prunes that were interrupted."""

    objects: int
    bytes: int
    records: int
    filling: int  # records with a live lease


def ls(store: Store) -> tuple[list[Row], Loose]:
    """A row for each feature plan, the most recently used first, and what belongs to none. Writes nothing.

    Raises StoreError.
    """
    store = store.reading()
    inventory = read_inventory(store)
    rows = [_row(inventory, plan) for plan in inventory.plans.values()]
    filled = {*inventory.plans, *(PurePosixPath(name).stem for name in inventory.unreadable)}
    held = dict.fromkeys(hold.plan for hold in inventory.holds)
    rows += [_row_of_holds(inventory, plan) for plan in held if plan not in filled]
    rows.sort(key=lambda row: float("inf") if row.last_used_s is None else row.last_used_s)
    rows += [_row_of_unreadable(name, why) for name, why in inventory.unreadable.items()]
    loose = [name for name in inventory.records if name not in inventory.known_records]
    leases = [lease for _, lease in in_threads(lambda name: _has_lease(store, name), loose)]
    return rows, Loose(
        objects=len(inventory.loose), bytes=sum(inventory.loose.values()), records=len(loose), filling=sum(leases)
    )


def table(rows: Iterable[Row], loose: Loose) -> list[str]:
    """The lines of a table."""
    head = ("plan", "source", "taps", "crops", "shards", "MB", "shared MB", "state", "last used", "held by")
    lines = columns(
        [
            head,
            *(
                (
                    short(row.plan),
                    row.source,
                    ",".join(row.taps) or "-",
                    f"{row.crops:,}",
                    f"{row.shards:,}",
                    megabytes(row.bytes),
                    megabytes(row.shared_bytes),
                    row.state,
                    "-" if row.last_used_s is None else age(row.last_used_s),
                    ", ".join(row.held_by) or "-",
                )
                for row in rows
            ),
        ],
        right=(3, 4, 5, 6),
    )
    objects, records = f"{loose.objects:,} objects of {megabytes(loose.bytes)} MB", f"{loose.records:,} shard records"
    return [*lines, f"in no ledger: {objects}, {records}, {loose.filling:,} of them being filled"]


def _row(inventory: Inventory, plan: StoredPlan) -> Row:
    present = {name: inventory.sizes[name] for name in plan.names if name in inventory.sizes}
    lacking = sum(inventory.sizes.get(name) != plan.ledger[tap][shard].bytes for tap, shard, name in plan.objects())
    listed, holds = len(plan.features.taps) * len(plan.features.units), inventory.holds_of(plan.digest)
    return Row(
        plan=plan.digest,
        source=source_label(plan.features),
        taps=plan.features.taps,
        crops=plan.crops,
        shards=len(plan.features.units),
        bytes=sum(present.values()),
        shared_bytes=sum(size for name, size in present.items() if inventory.listed[name] > 1),
        state=f"lacks {lacking:,} of {listed:,} objects" if lacking else "complete",
        last_used_s=min((hold.age_s for hold in holds), default=None),
        held_by=_holders(holds),
    )


def _row_of_holds(inventory: Inventory, plan: str) -> Row:
    """A plan without a ledger: its row comes from its newest hold."""
    holds = inventory.holds_of(plan)
    newest = min(holds, key=lambda hold: hold.age_s)
    return Row(
        plan=plan,
        source=f"{newest.teacher} {newest.source[:12]}" if newest.teacher else newest.source or "unknown",
        taps=newest.taps,
        crops=newest.crops,
        shards=newest.shards,
        bytes=0,
        shared_bytes=0,
        state="being filled" if any(hold.live for hold in holds) else "not filled",
        last_used_s=newest.age_s,
        held_by=_holders(holds),
    )


def _row_of_unreadable(name: str, why: str) -> Row:
    plan = PurePosixPath(name).stem
    return Row(
        plan=plan,
        source="unknown",
        taps=(),
        crops=0,
        shards=0,
        bytes=0,
        shared_bytes=0,
        state=why,
        last_used_s=None,
        held_by=(),
    )


def _holders(holds: Iterable[StoredHold]) -> tuple[str, ...]:
    return tuple(f"{hold.holder or hold.name} on {hold.host or 'an unknown host'}" for hold in holds if hold.live)


def _has_lease(store: Store, name: str) -> bool:
    try:
        stored = store.read_stamped(name)
    except FileNotFoundError:
        return False
    return ShardRecord.from_json(stored.data).live(stored.age_s)
