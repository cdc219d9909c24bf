"""Filling shards: claiming, computing and publishing each, with several in progress at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.features.fill.claim import LEASE_S, Claim, claim, read_record
from orchestrator.features.fill.shard import ShardWork, compute, pixels_of, whole_rows
from orchestrator.features.format.key import FeatureError, Tap
from orchestrator.features.format.ledger import Entry, entry_of
from orchestrator.features.format.tap_file import encode
from orchestrator.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a task did to one shard."""

    entries: dict[Tap, Entry]
    computed: bool
    bytes: int  # published
    duplicated: bool  # the claim was lost: the shard's record counts, not `entries`
    findings: tuple[str, ...]  # damaged objects that were made again


def fill_shard(store: Store, work: ShardWork, lease_s: float = LEASE_S) -> Filled | None:
    """`fill_shards` for a single shard."""
    (filled,) = fill_shards(store, [work], lease_s)
    return filled


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A claimed shard, with all that is needed to compute it."""

    work: ShardWork
    claim: Claim
    entries: dict[Tap, Entry]  # of the objects that exist already
    damaged: dict[Tap, tuple[str, str]]  # finding, tag of the object
    pixels: npt.NDArray[np.uint8] | None  # None: nothing is to be computed

    def made(self) -> dict[Tap, bytes]:
        """Computes the objects that do not exist."""
        if self.pixels is None:
            return {}
        taps = [tap for tap in self.work.objects if tap not in self.entries]
        return {tap: encode(tap, values) for tap, values in compute(self.work, self.pixels, taps).items()}


def fill_shards(store: Store, works: Sequence[ShardWork], lease_s: float = LEASE_S) -> list[Filled | None]:
    """Publishes what the store lacks of some shards.

    While one shard is computed, the one before it is published, and the next one is claimed and its pixels are fetched.
    An object that exists but is not in its shard's record is used if it decodes. One that does not decode, or is not
    what the record says, is named in `findings` and made again.

    Returns:
        One entry per shard; None for a shard that another process is filling.

    Raises FeatureError, PhotographError, StoreError.
    """
    filled: list[Filled | Future[Filled] | None] = []
    with (
        ExitStack() as claims,  # closed after both threads: frees what was not published
        ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher,
        ThreadPoolExecutor(1, thread_name_prefix="begin") as beginner,
    ):
        beginnings = (beginner.submit(_begin, store, work, lease_s, claims) for work in works)
        following = next(beginnings, None)
        while following is not None:
            begun, following = following.result(), next(beginnings, None)
            filled.append(
                publisher.submit(_publish, store, begun, begun.made()) if isinstance(begun, _Begun) else begun
            )
        return [shard.result() if isinstance(shard, Future) else shard for shard in filled]


def _begin(store: Store, work: ShardWork, lease_s: float, claims: ExitStack) -> _Begun | Filled | None:
    record = read_record(store, work.record)
    if not work.suspect and all(key in record.objects for key, _ in work.objects.values()):
        entries = {tap: record.objects[key] for tap, (key, _) in work.objects.items()}
        return Filled(entries=entries, computed=False, bytes=0, duplicated=False, findings=())
    claimed = claim(store, work.record, work.owner, lease_s)
    if claimed is None:
        return None
    claims.enter_context(claimed)
    entries, damaged = _present(store, work, {} if claimed.fresh else claimed.before.objects, fresh=claimed.fresh)
    pixels = None if entries.keys() >= work.objects.keys() else pixels_of(work, store)
    return _Begun(work=work, claim=claimed, entries=entries, damaged=damaged, pixels=pixels)


def _publish(store: Store, begun: _Begun, made: Mapping[Tap, bytes]) -> Filled:
    """Publishes the objects that were made, and ends the claim in any case."""
    work, damaged = begun.work, begun.damaged
    published, entries = 0, dict(begun.entries)
    with ExitStack() as stack:
        stack.push(begun.claim)
        for tap, data in made.items():
            key, name = work.objects[tap]
            tag = store.replace_if(name, data, damaged[tap][1]) if tap in damaged else store.publish(name, data)
            stored = store.read(name) if tag is None else data
            published += len(stored)
            entries[tap] = entry_of(key, stored)
        recorded = {**begun.claim.before.objects, **{entry.key: entry for entry in entries.values()}}
        finished = begun.claim.finish(recorded)
    return Filled(
        entries=entries,
        computed=bool(made),
        bytes=published,
        duplicated=not finished,
        findings=tuple(finding for finding, _ in damaged.values()),
    )


def _present(
    store: Store, work: ShardWork, recorded: Mapping[str, Entry], *, fresh: bool
) -> tuple[dict[Tap, Entry], dict[Tap, tuple[str, str]]]:
    """The objects of a shard that exist and can be used; and for those that cannot, why, and their tags."""
    entries: dict[Tap, Entry] = {}
    damaged: dict[Tap, tuple[str, str]] = {}
    for tap, (key, name) in work.objects.items():
        entry = recorded.get(key)
        if fresh or (entry is not None and not work.suspect):
            entries |= {} if entry is None else {tap: entry}
            continue
        try:
            stored = store.read_stamped(name)
        except FileNotFoundError:
            continue
        actual = entry_of(key, stored.data)
        try:
            if entry is not None and actual != entry:
                raise FeatureError(f"tap {tap}: {actual.bytes} bytes whose digest is not the recorded one")
            whole_rows(tap, stored.data, len(work.crops))
            entries[tap] = actual
        except FeatureError as error:
            damaged[tap] = f"{store.url}/{name}: {error}", stored.tag
    return entries, damaged
