"""What a store holds, told to people: its feature plans, the bytes of each, who uses them, when they were last used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.features.format.key import Tap
from orchestrator.features.format.ledger import ShardRecord
from orchestrator.features.keep.holds import Held
from orchestrator.features.keep.inventory import Inventory, StoredPlan, age, megabytes, source_label, survey
from orchestrator.spec.messages import columns
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Row:
    """What `ls` says of one feature plan."""

    plan: str  # digest
    source: str  # pixels, or the teacher's name and digest
    taps: tuple[Tap, ...]
    crops: int
    shards: int
    bytes: int  # that are there
    shared_bytes: int  # of these: also in another plan's ledger
    state: str
    last_used_s: float | None  # age of the newest hold
    held_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Loose:
    """What belongs to no ledger: of fills that go on or were cut off, or left by a prune that was."""

    objects: int
    bytes: int
    records: int
    filling: int  # records with a live lease


def ls(store: Store) -> tuple[list[Row], Loose]:
    """A row a feature plan, those that are used most recently first, and what belongs to none. Raises StoreError."""
    found = survey(store)
    rows = [_row(found, plan) for plan in found.plans.values()]
    filled = {*found.plans, *(PurePosixPath(name).stem for name in found.unreadable)}
    rows += [_row_of_holds(found, plan) for plan in dict.fromkeys(h.plan for h in found.holds) if plan not in filled]
    rows.sort(key=lambda row: float("inf") if row.last_used_s is None else row.last_used_s)
    rows += [_row_of_nothing(name, why) for name, why in found.unreadable.items()]
    loose = [name for name in found.records if name not in found.known_records]
    leases = [lease for _, lease in in_threads(lambda name: _has_lease(store, name), loose)]
    return rows, Loose(
        objects=len(found.loose), bytes=sum(found.loose.values()), records=len(loose), filling=sum(leases)
    )


def table(rows: Iterable[Row], loose: Loose) -> list[str]:
    """What `ls` prints."""
    head = ("plan", "source", "taps", "crops", "shards", "MB", "shared MB", "state", "last used", "held by")
    lines = columns(
        [
            head,
            *(
                (
                    row.plan[:12],
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


def _row(found: Inventory, plan: StoredPlan) -> Row:
    there = {name: found.sizes[name] for name in plan.names if name in found.sizes}
    lacking = sum(found.sizes.get(name) != plan.ledger[tap][shard].bytes for tap, shard, name in plan.objects())
    listed, holds = len(plan.features.taps) * len(plan.features.units), found.holds_of(plan.digest)
    return Row(
        plan=plan.digest,
        source=source_label(plan.features),
        taps=plan.features.taps,
        crops=plan.crops,
        shards=len(plan.features.units),
        bytes=sum(there.values()),
        shared_bytes=sum(size for name, size in there.items() if found.listed[name] > 1),
        state=f"lacks {lacking:,} of {listed:,} objects" if lacking else "complete",
        last_used_s=min((held.age_s for held in holds), default=None),
        held_by=_holders(holds),
    )


def _row_of_holds(found: Inventory, plan: str) -> Row:
    """Of a plan without a ledger: what its newest hold tells."""
    holds = found.holds_of(plan)
    newest = min(holds, key=lambda held: held.age_s)
    return Row(
        plan=plan,
        source=f"{newest.teacher} {newest.source[:12]}" if newest.teacher else newest.source or "unknown",
        taps=newest.taps,
        crops=newest.crops,
        shards=newest.shards,
        bytes=0,
        shared_bytes=0,
        state="being filled" if any(held.live for held in holds) else "not filled",
        last_used_s=newest.age_s,
        held_by=_holders(holds),
    )


def _row_of_nothing(name: str, why: str) -> Row:
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


def _holders(holds: Iterable[Held]) -> tuple[str, ...]:
    return tuple(f"{held.holder or held.name} on {held.host or 'an unknown host'}" for held in holds if held.live)


def _has_lease(store: Store, name: str) -> bool:
    try:
        there = store.read_stamped(name)
    except FileNotFoundError:
        return False
    return ShardRecord.from_json(there.data).live(there.age_s)
