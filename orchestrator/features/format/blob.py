"""Bytes that can be read at any offset, from a file or from memory."""

from __future__ import annotations

import mmap
import os
from io import FileIO
from pathlib import Path
from typing import Protocol


class Blob(Protocol):
    """Bytes that can be read at any offset, from several threads."""

    size: int

    def read_at(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes, read-only and not copied. Raises EOFError if there are fewer."""

    def close(self) -> None:
        """To be called after the last `read_at` has returned. What it returned stays valid."""


class FileBlob:
    """A file in memory as the kernel maps it. It takes up no file descriptor, of which a process has few.

    It stays readable, and keeps its space on the disk, after the file was removed. One that somebody cuts off in place
    ends the process (SIGBUS): nothing of ours does, as files are put in place whole and never written again.

    Args:
        file: may be closed afterwards. Raises OSError if it cannot be mapped.
    """

    def __init__(self, file: FileIO) -> None:
        self._name, self.size = file.name, os.fstat(file.fileno()).st_size
        # an empty file cannot be mapped
        self._view = memoryview(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) if self.size else b"")

    def read_at(self, offset: int, length: int) -> memoryview:
        if not 0 <= offset <= offset + length <= self.size:
            there = max(0, self.size - offset)
            raise EOFError(f"{self._name}: {length} bytes at {offset} expected, {there} there")
        return self._view[offset : offset + length]

    def close(self) -> None:
        self._view, self.size = memoryview(b""), 0  # unmapped with the last view of it


class MemoryBlob:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> memoryview:
        if not 0 <= offset <= offset + length <= self.size:
            raise EOFError(f"{length} bytes at {offset} expected, of {self.size}")
        return self._view[offset : offset + length]

    def close(self) -> None:
        self._view, self.size = memoryview(b""), 0


class DigestMismatch(RuntimeError):
    """Fetched bytes do not have the expected digest: `actual` is theirs (sha256 hex), `size` their number."""

    def __init__(self, expected: str, expected_size: int, actual: str, size: int) -> None:
        super().__init__(expected, expected_size, actual, size)  # the arguments, for pickle
        self.actual, self.size = actual, size
        self._line = f"{size} bytes with sha256 {actual}, expected {expected_size} with {expected}"

    def __str__(self) -> str:
        return self._line


def open_file(path: str | os.PathLike[str]) -> FileBlob:
    """Opens a file. Raises OSError."""
    with Path(path).open("rb", buffering=0) as file:
        return FileBlob(file)
