"""Examining files: each becomes a row, of a photograph or of why it is unfit; a tar a row for each of its pictures.

A row does not depend on what the photograph is wanted for, so it can be kept (manifest.py). It has the place of the
picture, so that a member of a tar is later read without looking through the tar. Tars are read by Python's own tarfile,
which tells where a member's data begin; the webdataset package streams them and does not.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lic_codec.photographs import digest
from orchestrator.photographs.columns import picture_fields, place_fields
from orchestrator.photographs.listing import TAR, is_regular, kind_of
from orchestrator.photographs.photos import in_store, named
from orchestrator.photographs.picture import FORMATS, NOT_READ, Unfit, decode
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

RULES_VERSION = 1  # raise it when the same file would get another row
READ_TOGETHER = 16  # files from S3, which are all in memory
READ_AHEAD = 8 * 2**20  # bytes of a tar on S3 a request
IS_TAR = "tar"  # `kind` of a tar's own row, whose reason is what was passed over in it: JSON, kind -> how many
UNREADABLE = "cannot be read"  # `kind` of a file that may be fit another time


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found in a file, or in a member of a tar; see `schema`."""

    path: bytes
    tar: bytes | None = None
    offset: int = 0
    size: int = 0
    width: int | None = None
    height: int | None = None
    digest: bytes | None = None
    kind: str | None = None
    reason: bytes | None = None


def schema() -> pa.Schema:
    """Columns of `place_fields` and `picture_fields`, then why a file is unfit (null: it is fit), and its version."""
    import pyarrow as pa

    why = [("kind", pa.string()), ("reason", pa.binary())]
    return pa.schema([*place_fields(), *picture_fields(), *why, ("bytes", pa.int64()), ("stamp", pa.binary())])


def examine(files: pa.Table) -> pa.Table:
    """The rows of some files of a `Listing`. Raises StoreError: S3 cannot be reached."""
    import pyarrow as pa

    versions = {os.fsdecode(file.pop("file")): file for file in files.to_pylist()}
    tars = [path for path in versions if path.lower().endswith(TAR)]
    rows = []
    for path in tars:
        rows += [{**asdict(row), **versions[path]} for row in _tar_rows(path, versions[path]["bytes"])]
    for path, data in _contents([path for path in versions if path not in tars]):
        rows.append({**asdict(_found(Row(path=os.fsencode(path)), data)), **versions[path]})
    return pa.Table.from_pylist(rows, schema=schema())


def _found(row: Row, data: bytes | Unfit) -> Row:
    """The row with what a picture's bytes are, or why there are none."""
    unfit = data if isinstance(data, Unfit) else None
    if isinstance(data, bytes):
        # Decoders get arbitrary bytes and raise nearly anything: any error becomes the file's reason.
        try:
            rgb = decode(data, minimum_side=1)
        except Exception as error:
            rgb = Unfit("cannot be decoded", f"cannot be decoded ({named(error)})")
        if not isinstance(rgb, Unfit):
            return replace(row, width=rgb.shape[1], height=rgb.shape[0], digest=bytes.fromhex(digest(rgb)))
        unfit = rgb
    assert unfit is not None
    return replace(row, kind=unfit.kind, reason=os.fsencode(unfit.reason))


def _contents(paths: Sequence[str]) -> Iterator[tuple[str, bytes | Unfit]]:
    """Each file's bytes, or why there are none; from S3 several at a time, since each request mostly waits."""

    def content(path: str) -> bytes | Unfit:
        return _unread(path) or _read(path)

    if not any(path.startswith("s3://") for path in paths):
        yield from ((path, content(path)) for path in paths)
        return
    for first in range(0, len(paths), READ_TOGETHER):
        yield from in_threads(content, paths[first : first + READ_TOGETHER])


def _unread(path: str) -> Unfit | None:
    """Why a file need not be read."""
    ending = Path(path).suffix
    if not path.startswith("s3://") and not is_regular(file := Path(path)):
        gone = f"a link to {file.readlink()}, which is not there" if file.is_symlink() else "not a regular file"
        return Unfit("not there" if file.is_symlink() else "not a file", gone)
    if ending.lower() in NOT_READ:
        return Unfit(f"*{ending.lower()}", f"{ending} is not read; convert it to one of {', '.join(FORMATS)}")
    return None


def _read(path: str) -> bytes | Unfit:
    try:
        if path.startswith("s3://"):
            store, name = in_store(path)
            return store.read(name)
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a StoreError is neither: the next file would fail as well
        return Unfit(UNREADABLE, f"cannot be read ({named(error)})")


def _tar_rows(path: str, size: int) -> Iterator[Row]:
    """A row for each picture in a tar, and one for the tar itself."""
    passed_over = Counter[str]()
    damage = _unread(path)
    try:
        if damage is None:
            with _opened(path, size) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _members(path, tar, passed_over)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
                    raise tarfile.ReadError(f"neither a header nor the end at byte {tar.offset}")
    except (OSError, ValueError) as error:
        damage = Unfit(UNREADABLE, f"cannot be read ({named(error)})")
    except tarfile.TarError as error:
        damage = Unfit("not a whole tar", f"not a tar, or not a whole one ({named(error)})")
    own = damage or Unfit(IS_TAR, json.dumps(passed_over))
    yield _found(Row(path=os.fsencode(path), tar=os.fsencode(path)), own)


def _members(path: str, tar: tarfile.TarFile, passed_over: Counter[str]) -> Iterator[Row]:
    """WebDataset's convention: an ending begins at the first dot of a name, so `a.mask.png` is no `.png`."""
    for member in tar:
        name = member.name.rpartition("/")[2]
        ending = f".{name.partition('.')[2].lower()}" if "." in name else ""
        if member.isdir():
            continue
        kind = "hidden" if name.startswith(".") else kind_of(ending)
        if kind is None and (ending == TAR or not member.isreg() or member.issparse()):
            kind = "*.tar in tars" if ending == TAR else "not a file"
        if kind is not None:
            passed_over[kind] += 1
            continue
        opened = tar.extractfile(member)
        assert opened is not None
        data = Unfit(f"*{ending}", f"{ending} is not read; convert it to one of {', '.join(FORMATS)}")
        place = os.fsencode(f"{path}/{member.name}")
        row = Row(path=place, tar=os.fsencode(path), offset=member.offset_data, size=member.size)
        yield _found(row, data if ending in NOT_READ else opened.read())


def _opened(path: str, size: int) -> BinaryIO:
    if not path.startswith("s3://"):
        return Path(path).open("rb")
    return io.BufferedReader(_Ranges(*in_store(path), size), READ_AHEAD)


class _Ranges(io.RawIOBase):
    """An object of a store as a file that can be read from any place on."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name, self._size, self._place = store, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._place))
        data = self._store.read_range(self._name, self._place, length) if length else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
