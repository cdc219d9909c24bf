"""Objects of a store on this node's disk: fetched once for all its processes, limited in bytes, read at any offset.

A file is named by the SHA-256 of its bytes. `locks/` has one file for each pair of first digits of a digest, locked
while an object is fetched, and the file `folder`, locked while room is made or a file gets its final name. These are
kernel locks (flock), which end with the process that holds them. Lock files are never removed: one that is removed
while another process waits for it locks nothing. Nothing is synced: the digest shows what a power cut has damaged, and
it is fetched again.
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

from orchestrator.features.format.blob import Blob, DigestMismatch, FileBlob, MemoryBlob

DIGEST = re.compile(r"[0-9a-f]{64}")
TEMPORARY = ".tmp"
FOLDER = "folder"  # the lock of the folder as a whole; its file also holds the count that `_make_room` keeps
SLACK = 64  # a sweep frees this fraction of the limit, so that a full cache is not listed again for every object


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class NodeCache:
    """One process's view of the node's cache; each process makes its own. For any number of threads.

    Args:
        folder: on a local disk, used by this cache only; created when it is needed, readable for its owner only.
        limit_bytes: of all files in the folder at any moment, running downloads included. A removed object that a
            process still has open takes up more disk until it is closed.
        warn: takes one line, the first time that the disk refuses an object.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, warn: Callable[[str], None] = _to_stderr) -> None:
        self._folder, self._limit, self._warn = Path(folder), limit_bytes, warn
        self._sound: set[str] = set()  # digests of files that were hashed, or written, by this process
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
        if not DIGEST.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")
        if blob := self._find(sha256, size):
            return blob
        if size > self._limit:
            return MemoryBlob(_checked(fetch(), sha256, size))
        with ExitStack() as held:
            room: Path | None = None
            try:
                held.enter_context(self._lock(sha256[:2]))
                if blob := self._find(sha256, size):
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

    def _find(self, sha256: str, size: int) -> FileBlob | None:
        """The file, if it exists and is sound. An unreadable one counts as absent; replacing it shows the error."""
        try:
            file = (self._folder / sha256).open("rb", buffering=0)
        except OSError:
            return None
        with ExitStack() as held, suppress(OSError):
            held.callback(file.close)
            blob = FileBlob(file)
            if blob.size != size:
                return None
            if sha256 not in self._sound and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return None
            self._sound.add(sha256)
            with suppress(OSError):  # a read-only disk
                os.utime(file.fileno())
            held.pop_all()
            return blob
        return None

    @contextmanager
    def _room(self, sha256: str, size: int) -> Iterator[Path | None]:
        """A temporary file of the object's size, removed at the end unless it was renamed. None: no room for it."""
        with ExitStack() as held:
            path = None
            with self._lock(FOLDER) as count:
                if self._make_room(count, size):
                    path = self._folder / f"{sha256}.{uuid.uuid4().hex}{TEMPORARY}"
                    file = held.enter_context(path.open("xb"))
                    held.callback(_remove, path)
                    fcntl.flock(file, fcntl.LOCK_EX)  # shows that its process is alive
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found before the download
            yield path

    def _keep(self, room: Path, sha256: str, data: bytes) -> FileBlob:
        with room.open("r+b") as file:
            file.write(data)
        with self._lock(FOLDER):  # a listing during a rename may show neither name
            blob = FileBlob(room.replace(self._folder / sha256).open("rb", buffering=0))
        self._sound.add(sha256)
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
                        if DIGEST.fullmatch(entry.name):
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
