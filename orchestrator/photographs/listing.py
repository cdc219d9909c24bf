"""Which files of a place may be photographs: of a folder with its subfolders, or of the objects below an S3 prefix.

Nothing is opened. Tars are listed as files; what is in them is found when they are examined.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from models.one_line import one_line
from orchestrator.photographs.photos import PhotographError
from orchestrator.photographs.picture import NOT_READ, endings
from orchestrator.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

TAR = ".tar"  # a compressed one cannot be read at an offset


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is at a place.

    Attributes:
        place: the folder's absolute path, or s3://bucket/prefix.
        files: columns `file` (binary: `os.fsencode` of the absolute path or the URL), `bytes` and `stamp` (binary,
            another one when the file was written again), sorted by file.
        passed_over: what is not looked at, counted by kind.
    """

    place: str
    files: pa.Table
    passed_over: Counter[str]


def list_files(place: str | os.PathLike[str]) -> Listing:
    """Lists a place. Raises PhotographError: there is no such folder, or one cannot be read; StoreError."""
    import pyarrow as pa

    text = os.fspath(place)
    if text.startswith("s3://"):
        text = Store(text).url
        found, passed_over = _below_prefix(text)
    else:
        text = str(Path(text.removeprefix("file://")).absolute())
        found, passed_over = _below_folder(text)
    found.sort()
    names, sizes, stamps = zip(*found, strict=True) if found else ((), (), ())
    columns = [pa.array(names, pa.binary()), pa.array(sizes, pa.int64()), pa.array(stamps, pa.binary())]
    return Listing(place=text, files=pa.table(columns, names=["file", "bytes", "stamp"]), passed_over=passed_over)


def kind_of(ending: str) -> str | None:
    """Under what a file of this ending (lower case, with its dot) is passed over; None: it may be a photograph."""
    if ending in endings() or ending in NOT_READ or ending == TAR:
        return None
    return f"*{ending}" if ending else "without an ending"


def _below_prefix(url: str) -> tuple[list[tuple[bytes, int, bytes]], Counter[str]]:
    found, passed_over = [], Counter[str]()
    for name, version in Store(url).versions().items():
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in path.parts)
        kind = "hidden" if hidden else kind_of(path.suffix.lower())
        if kind is None:
            found.append((os.fsencode(f"{url}/{name}"), version.bytes, version.stamp.encode()))
        else:
            passed_over[kind] += 1
    return found, passed_over


def _below_folder(root: str) -> tuple[list[tuple[bytes, int, bytes]], Counter[str]]:
    found, passed_over, folders = [], Counter[str](), [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        passed_over["hidden"] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif _leads_to_folder(entry):  # perhaps back to where we are
                        passed_over["linked folders"] += 1
                    elif (kind := kind_of(os.path.splitext(entry.name)[1].lower())) is not None:  # noqa: PTH122
                        passed_over[kind] += 1
                    else:
                        status = _status(entry)
                        found.append((os.fsencode(entry.path), status.st_size, str(status.st_mtime_ns).encode()))
        except FileNotFoundError:
            raise PhotographError(f"{one_line(folder)}: no such folder") from None
        except OSError as error:
            raise PhotographError(f"{one_line(folder)}: cannot be read: {error.strerror}") from None
    return found, passed_over


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Of the file that a link leads to; of a link to nothing its own."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


def is_regular(path: Path) -> bool:
    """Whether there is a file to be read, through links."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
