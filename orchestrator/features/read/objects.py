"""Opens the objects of feature plans: from the store, or from what the node has of them, checked either way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from orchestrator.features.format.blob import Blob, DigestMismatch, MemoryBlob, open_file
from orchestrator.features.format.decoded import KIND, DecodedTap, decode
from orchestrator.features.format.key import DamagedObject, FeatureError, FeaturePlan, Tap
from orchestrator.features.format.ledger import Entry, Ledgers
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.store.store import Store

Opened = StoredTap | DecodedTap


class Objects:
    """The objects of some feature plans. For any number of threads.

    Args:
        store: where `fill` put them.
        feature_plans: no two with a tap of the same name.
        cache: this node's. A store on `file://` is mapped where it is, unless the cache keeps objects decoded.

    Raises:
        FeatureError: a ledger is missing.
    """

    def __init__(self, store: Store, feature_plans: Sequence[FeaturePlan], cache: NodeCache | None) -> None:
        self._store, self._cache = store, cache
        self._sources: dict[Tap, FeaturePlan] = {}
        self._ledgers: dict[str, Ledgers] = {}
        for features in feature_plans:
            self._ledgers[features.digest] = Ledgers(store, features)
            self._sources.update(dict.fromkeys(features.taps, features))
        stored = sum(ledgers.stored_bytes for ledgers in self._ledgers.values())
        self._decoded = cache is not None and cache.keeps_decoded(stored)
        self._sound: dict[Path, tuple[int, int, int, str]] = {}  # inode, size, time and digest of files once hashed
        self._read_bytes, self._counting = 0, threading.Lock()

    @property
    def taps(self) -> list[Tap]:
        """All that can be opened."""
        return list(self._sources)

    @property
    def read_bytes(self) -> int:
        """Bytes of objects read from the store so far; those that the node's cache has are not read."""
        return self._read_bytes

    def open(self, tap: Tap, shard: int) -> Opened:
        """A shard's object, to be closed by the caller.

        A damaged one is read again by a ledger that is read again, since the object may have been made again.

        Raises:
            DamagedObject: it is missing, or is not what its ledger says.
        """
        ledgers = self._ledgers[self._sources[tap].digest]
        try:
            return self._verified(tap, shard, ledgers.entry(tap, shard), checksum=False)
        except DamagedObject:
            ledgers.forget()
            return self._verified(tap, shard, ledgers.entry(tap, shard), checksum=True)

    def damaged(self, tap: Tap, shard: int, what: str) -> DamagedObject:
        """The error that names an object and what is wrong with it."""
        features = self._sources[tap]
        name = features.object_of(tap, self._ledgers[features.digest].entry(tap, shard).key)
        where = f"{self._store.url}/{name}: tap {tap}, shard {shard}"
        return DamagedObject(f"{where}: {what}; fill the store again", features.digest, tap, shard)

    def _verified(self, tap: Tap, shard: int, entry: Entry, *, checksum: bool) -> Opened:
        features = self._sources[tap]
        name, crops = features.object_of(tap, entry.key), len(features.shards[shard])
        try:
            if self._decoded and self._cache is not None:
                blob = self._cache.open_made(entry.sha256, KIND, lambda: self._decode(tap, name, entry, checksum))
                opened: Opened = DecodedTap(tap, blob)
            else:
                opened = StoredTap(tap, self._blob(name, entry, checksum))
        except FileNotFoundError as error:
            raise self.damaged(tap, shard, "the object is missing") from error
        except DigestMismatch as error:
            raise self.damaged(tap, shard, f"{error.size} bytes whose digest is not the ledger's") from error
        except FeatureError as error:
            raise self.damaged(tap, shard, str(error)) from error
        if len(opened) != crops:
            raise self.damaged(tap, shard, f"{len(opened)} crops, {crops} expected")
        return opened

    def _blob(self, name: str, entry: Entry, checksum: bool) -> Blob:
        path = self._store.local_path(name)
        if path is not None:
            return self._mapped(path, entry)
        if self._cache is None:
            return MemoryBlob(self._fetched(name, entry, checksum))
        return self._cache.open(entry.sha256, entry.bytes, lambda: self._fetched(name, entry, checksum))

    def _mapped(self, path: Path, entry: Entry) -> Blob:
        """A file of the store; it is hashed when it is first opened, and again once it is another file."""
        blob, status = open_file(path), path.stat()
        seen = status.st_ino, status.st_size, status.st_mtime_ns, entry.sha256
        if self._sound.get(path) != seen:
            self._check(blob.read_at(0, blob.size), entry)
            self._sound[path] = seen
        return blob

    def _decode(self, tap: Tap, name: str, entry: Entry, checksum: bool) -> bytes:
        return decode(tap, StoredTap(tap, MemoryBlob(self._fetched(name, entry, checksum))))

    def _fetched(self, name: str, entry: Entry, checksum: bool) -> bytes:
        data = self._store.read(name, checksum=checksum)
        self._check(data, entry)
        return data

    def _check(self, data: bytes | memoryview, entry: Entry) -> None:
        with self._counting:
            self._read_bytes += len(data)
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise DigestMismatch(entry.sha256, entry.bytes, digest, len(data))
