"""Objects of a store on this node's disk: fetched once for all its processes, limited in bytes, read at any offset.

A file is named by the SHA-256 of its bytes; one that was made of an object by that object's SHA-256 and what it is, and
it ends with a checksum. `locks/` has one file for each pair of first digits of a digest, locked while an object is
fetched, and the file `folder`, locked while room is made or a file gets its final name. These are kernel locks (flock),
which end with the process that holds them. Lock files are never removed: one that is removed while another process
waits for it locks nothing. Nothing is synced: digest or checksum show what a power cut has damaged, and it is fetched
or made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

import xxhash

from orchestrator.features.format.blob import Blob, DigestMismatch, FileBlob, MemoryBlob, open_file

DIGEST = re.compile(r"[0-9a-f]{64}")
OBJECT = re.compile(r"[0-9a-f]{64}(\.[a-z]+-[0-9]+)?")  # a file that may be removed
CHECKSUM_BYTES = 16  # XXH3: SHA-256 takes ten times as long as all else that is done with such a file
TEMPORARY = ".tmp"
FOLDER = "folder"  # the lock of the folder as a whole; its file also holds the count that `_make_room` keeps
DECODED_SIZE = 2.5  # decoded shards, over stored ones, at most: 2.1 with 256x256 pixels, reconstructions and y
SLACK = 64  # a sweep frees this fraction of the limit, so that a full cache is not listed again for every object


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class NodeCache:
    """One process's view of the node's cache; each process makes its own. For any number of threads.

    Args:
        folder: on a local disk, used by this cache only; created when it is needed, readable for its owner only.
        limit_bytes: of all files in the folder at any moment, running downloads included. A removed object that a
            process still has open takes up more disk until it is closed.
        decoded: objects are to be kept decoded where there is room; see `keeps_decoded`.
        warn: takes one line, the first time that the disk refuses an object.
    """

    def __init__(
        self,
        folder: str | Path,
        limit_bytes: int,
        warn: Callable[[str], None] = _to_stderr,
        *,
        decoded: bool = False,
    ) -> None:
        self._folder, self._limit, self._warn, self._decoded = Path(folder), limit_bytes, warn, decoded
        self._sound: dict[str, int] = {}  # name -> bytes, of files that were checked, or written, by this process
        self._swept = False
        self._warned = threading.Lock()  # taken once, and kept

    def open(self, sha256: str, size: int, fetch: Callable[[], bytes]) -> Blob:
        """The object with this digest (hex) and size in bytes; to be closed by the caller.

        One thread of one process on the node fetches what is absent or damaged, while the others wait for it. The
        object is returned in memory and not kept if it is larger than the limit, if running downloads fill the limit,
        or if the disk is full or refuses it; the disk is tried again for the next one.

        `fetch` must not open another object of the cache: two that wait for each other would never end.

        Raises:
            DigestMismatch: for what `fetch` returned.
            ValueError: `sha256` is not a digest.
            Exception: whatever `fetch` raises.
        """
        _check_name(sha256)

        def sound(content: memoryview) -> bool:
            return len(content) == size and hashlib.sha256(content).hexdigest() == sha256

        if blob := self._find(sha256, sound):
            return blob
        if size > self._limit:
            return MemoryBlob(_checked(fetch(), sha256, size))
        with ExitStack() as held:
            room: Path | None = None
            try:
                held.enter_context(self._lock(sha256[:2]))
                if blob := self._find(sha256, sound):
                    return blob
                (self._folder / sha256).unlink(missing_ok=True)  # damaged
                room = held.enter_context(self._room(sha256, size))
            except OSError as error:
                self._go_without(error)
            if room is None:
                held.close()  # nothing will be kept, so nobody need wait for it
            data = _checked(fetch(), sha256, size)
            if room is not None:
                try:
                    return self._keep(room, sha256, data)
                except OSError as error:
                    self._go_without(error)
            return MemoryBlob(data)

    def keeps_decoded(self, stored_bytes: int) -> bool:
        """Whether objects of so many bytes are to be kept decoded: all of them, or none.

        If there were room for a part only, what was used longest ago, and comes next, would be removed for the rest.
        """
        if not self._decoded or fits_decoded(stored_bytes, self._limit):
            return self._decoded
        room = f"room for {DECODED_SIZE * stored_bytes / 1e9:.1f} GB of decoded shards is needed"
        self._warn(f"node_cache.gigabytes: {self._limit / 1e9:g}; {room}: they are kept as they are stored")
        return False

    def open_made(self, sha256: str, kind: str, make: Callable[[], bytes]) -> Blob:
        """What `make` returns for the object with this digest; to be closed by the caller.

        One thread of one process on the node makes what is absent or damaged, while the others wait for it. What does
        not fit, or what the disk refuses, is returned in memory, as by `open`.

        Args:
            sha256: of the object, hex.
            kind: of what is made: a word, a hyphen and a number.
            make: must give the same bytes for the same object and kind, and must not open an object of the cache.

        Raises:
            ValueError: `sha256` is not a digest.
            Exception: whatever `make` raises.
        """
        _check_name(sha256)
        name = f"{sha256}.{kind}"
        if blob := self._find(name, _has_checksum):
            return blob
        with ExitStack() as held:
            try:
                held.enter_context(self._lock(sha256[:2]))
                if blob := self._find(name, _has_checksum):
                    return blob
                (self._folder / name).unlink(missing_ok=True)  # damaged
            except OSError as error:
                self._go_without(error)
            data = make()
            try:
                with self._room(name, len(data) + CHECKSUM_BYTES) as room:
                    if room is not None:
                        return self._keep(room, name, data, xxhash.xxh3_128_digest(data))
            except OSError as error:
                self._go_without(error)
            return MemoryBlob(data)

    def _find(self, name: str, sound: Callable[[memoryview], bool]) -> FileBlob | None:
        """The file, if it exists and is sound. An unreadable one counts as absent; replacing it shows the error."""
        with suppress(OSError), (self._folder / name).open("rb", buffering=0) as file:
            blob = FileBlob(file)
            if self._sound.get(name) != blob.size and not sound(blob.read_at(0, blob.size)):
                return None
            self._sound[name] = blob.size
            with suppress(OSError):  # a read-only disk
                os.utime(file.fileno())
            return blob
        return None

    @contextmanager
    def _room(self, name: str, size: int) -> Iterator[Path | None]:
        """A temporary file of the object's size, removed at the end unless it was renamed. None: no room for it."""
        with ExitStack() as held:
            path = None
            with self._lock(FOLDER) as count:
                if self._make_room(count, size):
                    path = self._folder / f"{name}.{uuid.uuid4().hex}{TEMPORARY}"
                    file = held.enter_context(path.open("xb"))
                    held.callback(_remove, path)
                    fcntl.flock(file, fcntl.LOCK_EX)  # shows that its process is alive
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found before the download
            yield path

    def _keep(self, room: Path, name: str, *parts: bytes) -> FileBlob:
        with room.open("r+b") as file:
            for part in parts:
                file.write(part)
        with self._lock(FOLDER):  # a listing during a rename may show neither name
            blob = open_file(room.replace(self._folder / name))
        self._sound[name] = blob.size
        return blob

    def _make_room(self, count: FileIO, size: int) -> bool:
        """Whether `size` bytes more are within the limit, after removing objects; under the folder's lock.

        The count is never below the bytes in the folder: it is raised before a file is made, and lowered only by a
        sweep. A process's first miss always sweeps: the machine may have lost power since the last one.
        """
        text = os.pread(count.fileno(), 20, 0).strip()
        held = int(text) if text.isdigit() else self._limit
        if not self._swept or held + size > self._limit:
            held = self._sweep(size)
            self._swept = True
        if held + size > self._limit:
            return False
        os.pwrite(count.fileno(), b"%20d" % (held + size), 0)
        return True

    def _sweep(self, size: int) -> int:
        """Removes files of killed downloads, then the least recently opened objects. Returns the bytes that remain."""
        objects: list[tuple[int, int, str]] = []
        held = fixed = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process's download failed just now
                    if entry.name.endswith(TEMPORARY) and _abandoned(entry.path):
                        _remove(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        held += status.st_size
                        if OBJECT.fullmatch(entry.name):
                            objects.append((status.st_mtime_ns, status.st_size, entry.path))
                        else:
                            fixed += status.st_size
        if fixed + size > self._limit or held + size <= self._limit:
            return held
        objects.sort()
        for _, bytes_freed, path in objects:
            if held <= self._limit - max(size, self._limit // SLACK):
                break
            Path(path).unlink(missing_ok=True)
            held -= bytes_freed
        return held

    @contextmanager
    def _lock(self, name: str) -> Iterator[FileIO]:
        """Excludes all other threads and processes of the node. Raises OSError if the folder cannot be used."""
        locks = self._folder / "locks"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        locks.mkdir(mode=0o700, exist_ok=True)
        with FileIO(os.open(locks / name, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a forked child may have the file open too

    def _go_without(self, error: OSError) -> None:
        if self._warned.acquire(blocking=False):
            reason = error.strerror or type(error).__name__
            self._warn(
                f"{self._folder}: {reason}; reading goes on without keeping objects there: "
                "each is fetched again whenever it is opened"
            )


def fits_decoded(stored_bytes: float, limit_bytes: int) -> bool:
    """Whether a cache with this limit has room for objects of so many bytes when they are decoded."""
    return DECODED_SIZE * stored_bytes <= limit_bytes


def _check_name(sha256: str) -> None:
    if not DIGEST.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")


def _has_checksum(content: memoryview) -> bool:
    data, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    return xxhash.xxh3_128_digest(data) == checksum


def _checked(data: bytes, sha256: str, size: int) -> bytes:
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256 or len(data) != size:
        raise DigestMismatch(sha256, size, actual, len(data))
    return data


def _abandoned(path: str) -> bool:
    """Whether the process that made a temporary file has ended."""
    with Path(path).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _remove(path: str | Path) -> None:
    """Removes a file if possible: a folder that has become read-only is no reason to fail."""
    with suppress(OSError):
        Path(path).unlink(missing_ok=True)
