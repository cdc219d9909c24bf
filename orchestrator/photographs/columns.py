"""Many photographs in columns: a million of them take some 100 MB, and 40 MB as a crop plan needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from orchestrator.photographs.photos import Photograph

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST_BYTES = 32
NAMED = 4096  # photographs that a run folder's inputs name one by one, at most


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sizes:
    """What decides a crop plan of some photographs, sorted by digest: their names and places do not.

    Attributes:
        digests: uint8 [n, 32].
        widths, heights: int32 [n], pixels.
    """

    digests: npt.NDArray[np.uint8]
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the columns."""
        content = hashlib.sha256(self.digests.tobytes())
        for column in (self.widths, self.heights):
            content.update(column.astype("<i4").tobytes())
        return content.hexdigest()


class PhotographTable(Sequence[Photograph]):
    """Photographs as rows of a table; one is made when it is asked for.

    Args:
        table: columns `path` and `tar` (binary, `os.fsencode`; `tar` may be null), `offset`, `size`, `width`, `height`,
            and `digest` (binary of 32 bytes); others are ignored.
    """

    def __init__(self, table: pa.Table) -> None:
        names = ("path", "digest", "width", "height", "tar", "offset", "size")
        self._columns = [table.column(name).combine_chunks() for name in names]

    @classmethod
    def of(cls, photographs: Iterable[Photograph]) -> PhotographTable:
        """The same photographs in columns."""
        import pyarrow as pa

        if isinstance(photographs, PhotographTable):
            return photographs
        rows = [
            {
                "path": os.fsencode(photograph.path),
                "tar": None if photograph.tar is None else os.fsencode(photograph.tar),
                "offset": photograph.offset,
                "size": photograph.size,
                "width": photograph.width,
                "height": photograph.height,
                "digest": bytes.fromhex(photograph.digest),
            }
            for photograph in photographs
        ]
        return cls(pa.Table.from_pylist(rows, schema=pa.schema(place_fields() + picture_fields())))

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, index: int) -> Photograph: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Photograph, ...]: ...
    def __getitem__(self, index: int | slice) -> Photograph | tuple[Photograph, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(len(self))[index])
        place = range(len(self))[index]
        path, digest, width, height, tar, offset, size = (column[place].as_py() for column in self._columns)
        return Photograph(
            path=os.fsdecode(path),
            digest=digest.hex(),
            width=width,
            height=height,
            tar=None if tar is None else os.fsdecode(tar),
            offset=offset,
            size=size,
        )

    @cached_property
    def sizes(self) -> Sizes:
        """Digests and sizes, sorted by digest."""
        return Sizes(
            digests=self._digests[self._order], widths=self._int(2)[self._order], heights=self._int(3)[self._order]
        )

    def smaller_than(self, side: int) -> Photograph | None:
        """The first one of which a side has fewer pixels; None: there is none."""
        small = np.flatnonzero(np.minimum(self._int(2), self._int(3)) < side)
        return self[int(small[0])] if len(small) else None

    @cached_property
    def identity(self) -> list[str]:
        """What tells these photographs from others: their digests in order; of many, their number and one digest."""
        if len(self) <= NAMED:
            return [digest.tobytes().hex() for digest in self._digests]
        return [f"{len(self)} photographs", self.sizes.digest]

    @property
    def by_digest(self) -> Mapping[str, Photograph]:
        """The photographs by their digests, hex."""
        return _ByDigest(self)

    def find(self, digest: str) -> int:
        """The row of the photograph with this digest (hex). Raises KeyError."""
        wanted = bytes.fromhex(digest)
        place = int(np.searchsorted(self._sorted, np.frombuffer(wanted, self._sorted.dtype)[0]))
        row = int(self._order[place]) if place < len(self) else -1
        if row < 0 or self._digests[row].tobytes() != wanted:
            raise KeyError(digest)
        return row

    @cached_property
    def _digests(self) -> npt.NDArray[np.uint8]:
        return digest_array(self._columns[1])

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(_as_text(self._digests), kind="stable")

    @cached_property
    def _sorted(self) -> npt.NDArray[np.bytes_]:
        return _as_text(self._digests[self._order])

    def _int(self, column: int) -> npt.NDArray[np.int32]:
        return np.asarray(self._columns[column].to_numpy(zero_copy_only=False), np.int32)


class _ByDigest(Mapping[str, Photograph]):
    def __init__(self, photographs: PhotographTable) -> None:
        self._photographs = photographs

    def __getitem__(self, digest: str) -> Photograph:
        return self._photographs[self._photographs.find(digest)]

    def __iter__(self) -> Iterator[str]:
        return (photograph.digest for photograph in self._photographs)

    def __len__(self) -> int:
        return len(self._photographs)


def place_fields() -> list[Any]:
    """The columns of where a photograph is."""
    import pyarrow as pa

    return [("path", pa.binary()), ("tar", pa.binary()), ("offset", pa.int64()), ("size", pa.int64())]


def picture_fields() -> list[Any]:
    """The columns of what it is."""
    import pyarrow as pa

    return [("width", pa.int32()), ("height", pa.int32()), ("digest", pa.binary(DIGEST_BYTES))]


def digest_array(column: pa.Array) -> npt.NDArray[np.uint8]:
    """uint8 [n, 32] of a column of digests; what is null there is arbitrary here."""
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return data[column.offset * DIGEST_BYTES :][: len(column) * DIGEST_BYTES].reshape(-1, DIGEST_BYTES)


def _as_text(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """The digests as NumPy sorts them: as bytes, from the left."""
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").ravel()
