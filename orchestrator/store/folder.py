"""Objects as files below a local folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store.errors import Stamped, StoreError, Version

LOCK = ".lock"  # the file that `replace_if` locks in an object's folder


@dataclass(frozen=True)
class Folder:
    """A folder as a store's backend; for the methods see `Store`."""

    root: Path
    read_only: bool = False

    def read(self, name: str, *, checksum: bool) -> bytes:
        del checksum  # files have none
        with self._disk_faults(FileNotFoundError):
            return (self.root / name).read_bytes()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self._disk_faults(FileNotFoundError), (self.root / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def read_stamped(self, name: str) -> Stamped:
        path = self.root / name
        with self._disk_faults(FileNotFoundError):
            data, written = path.read_bytes(), path.stat().st_mtime
        return Stamped(data=data, tag=_tag(data), age_s=max(0.0, self._now(path.parent) - written))

    def exists(self, name: str) -> bool:
        with self._disk_faults():
            return (self.root / name).is_file()

    def publish(self, name: str, data: bytes) -> str | None:
        return _tag(data) if self._write(name, data, overwrite=False) else None

    def replace(self, name: str, data: bytes) -> None:
        self._write(name, data, overwrite=True)

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        path = self.root / name
        with self._locked(path.parent):
            try:
                if _tag(path.read_bytes()) != tag:
                    return None
            except FileNotFoundError:
                return None
            self._write(name, data, overwrite=True)
        return _tag(data)

    def versions(self, prefix: str) -> dict[str, Version]:
        walk = os.walk(self.root / prefix, onerror=_listing_fault)
        files = (Path(folder) / file for folder, _, names in walk for file in names if not _temporary(file))
        versions = {}
        with self._disk_faults():
            for file in sorted(files):
                with suppress(FileNotFoundError):  # deleted since it was listed
                    status = file.stat()
                    versions[file.relative_to(self.root).as_posix()] = Version(status.st_size, str(status.st_mtime_ns))
        return versions

    def delete(self, name: str) -> None:
        with self._disk_faults():
            (self.root / name).unlink(missing_ok=True)

    def _write(self, name: str, data: bytes, *, overwrite: bool) -> bool:
        target = self.root / name
        with self._disk_faults():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if overwrite:
                    temporary.replace(target)
                else:
                    os.link(temporary, target)  # fails if the target exists: the only atomic create of a whole file
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _now(self, folder: Path) -> float:
        """Time by the clock that stamps the folder's files, which on a network disk is its server's.

        It can only be learned by writing a file, so a read-only store uses this machine's clock.
        """
        if self.read_only:
            return time.time()
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        with self._disk_faults():
            try:
                temporary.touch()
                return temporary.stat().st_mtime
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with self._disk_faults():
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _disk_faults(self, *known: type[OSError]) -> Iterator[None]:
        """Turns what a disk refuses, such as to write when it is full, into StoreError; `known` errors pass."""
        try:
            yield
        except known:
            raise
        except (NotADirectoryError, FileExistsError) as error:
            raise StoreError(f"file://{self.root}: {error.filename} is not a folder, or in one") from error
        except OSError as error:
            raise StoreError(f"file://{self.root}: {error.strerror or error}") from error


def _listing_fault(error: OSError) -> None:
    """Raises what `os.walk` would pass over, such as a folder that may not be read; one that is gone is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _temporary(file: str) -> bool:
    return file == LOCK or (file.startswith(".") and file.endswith(".tmp"))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
