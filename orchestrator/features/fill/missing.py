"""What a store lacks of feature plans, by their ledgers and one listing of each folder."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.features.format.key import FeaturePlan, Tap
from orchestrator.features.format.ledger import Entry, read_ledger
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store


def missing(store: Store, features: FeaturePlan) -> tuple[int, ...]:
    """Indices of shards that lack an object or have one of another size; all of a part while it has no ledger.

    Lists the folder of each tap. Raises FeatureError, StoreError.
    """
    sizes = Listing(store)
    return tuple(shard for part in range(len(features.parts)) for shard in Part(sizes, features, part).lacking)


class Listing:
    """Bytes of objects in a store by name, listed when they are asked for, each folder once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._sizes: dict[str, dict[str, int]] = {}

    def others(self, features: FeaturePlan, entries: Mapping[int, Mapping[Tap, Entry]]) -> tuple[int, ...]:
        """Shards of which an object is missing or has another size."""
        if not entries:
            return ()
        folders = dict.fromkeys(features.folder(tap) for tap in features.taps)
        self._sizes |= in_threads(self.store.sizes, [folder for folder in folders if folder not in self._sizes])
        sizes = {tap: self._sizes[features.folder(tap)] for tap in features.taps}
        return tuple(
            shard
            for shard, taps in entries.items()
            if any(sizes[tap].get(features.object_of(tap, entry.key)) != entry.bytes for tap, entry in taps.items())
        )


class Part:
    """A part of a feature plan, and which of its shards are to be filled."""

    def __init__(self, listing: Listing, features: FeaturePlan, number: int) -> None:
        self.features, self.shards = features, features.parts[number]
        ledger = read_ledger(listing.store, features, number)
        self.has_ledger = ledger is not None
        self.lacking: tuple[int, ...] = tuple(self.shards)
        if ledger is not None:
            entries = {
                shard: {tap: ledger[tap][shard - self.shards.start] for tap in features.taps} for shard in self.shards
            }
            self.lacking = listing.others(features, entries)
