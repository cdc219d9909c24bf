"""Bytes that can be read at any offset, from a file or from memory."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Protocol


class Blob(Protocol):
    """Bytes that can be read at any offset, from several threads."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises EOFError if there are fewer."""

    def close(self) -> None:
        """To be called after the last `read_at` has returned."""


class FileBlob:
    """An open file. It stays readable, and keeps its space on the disk, after the file was removed."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._file.fileno(), length, offset)
        while len(data) < length:  # network file systems may return less than was asked for
            more = os.pread(self._file.fileno(), length - len(data), offset + len(data))
            if not more:
                raise EOFError(f"{self._file.name}: {length} bytes at {offset} expected, {len(data)} there")
            data += more
        return data

    def close(self) -> None:
        self._file.close()


class MemoryBlob:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise EOFError(f"{length} bytes at {offset} expected, of {self.size}")
        return self._data[offset : offset + length]

    def close(self) -> None:
        self._data, self.size = b"", 0


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
    return FileBlob(Path(path).open("rb", buffering=0))
