"""Bytes read at any offset, and the errors of bytes that are not there or not those that were expected."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from orchestrator.features.format.blob import Blob, DigestMismatch, MemoryBlob, open_file

DATA = bytes(range(10))


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_exactly_the_bytes_asked_for_or_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a file"
    path.write_bytes(DATA)
    blob: Blob = open_file(path) if kind == "file" else MemoryBlob(DATA)
    assert blob.size == 10
    assert [blob.read_at(*part) for part in ((0, 10), (3, 4), (10, 0))] == [DATA, DATA[3:7], b""]
    with pytest.raises(EOFError) as raised:
        blob.read_at(8, 3)
    lines = {"file": f"{path}: 3 bytes at 8 expected, 2 there", "memory": "3 bytes at 8 expected, of 10"}
    assert str(raised.value) == lines[kind]
    path.unlink()
    assert blob.read_at(9, 1) == DATA[9:]  # an open file stays readable
    blob.close()


def test_another_digest_says_both_and_survives_the_way_between_processes() -> None:
    error = DigestMismatch("a" * 64, 7, "b" * 64, 5)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what Ray does with an exception
    for mismatch in (error, again):
        assert str(mismatch) == f"5 bytes with sha256 {'b' * 64}, expected 7 with {'a' * 64}"
        assert (mismatch.actual, mismatch.size) == ("b" * 64, 5)
