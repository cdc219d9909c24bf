"""Transforms a part at a time, so that memory does not grow with the photograph.

A part is a square of blocks of 64 pixels, read with a margin as wide as the transform's receptive field: the result is
the whole photograph's, but for the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 64  # pixels a side of one element of the hyper-latent
PART = 16  # blocks a side


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rectangle of blocks: what is computed, and what is kept of it; (top, bottom, left, right) in blocks."""

    read: tuple[int, int, int, int]
    kept: tuple[int, int, int, int]

    def rows(self, unit: int) -> slice:
        """Of the whole photograph, of those kept; `unit` is elements a block and side."""
        return slice(self.kept[0] * unit, self.kept[1] * unit)

    def columns(self, unit: int) -> slice:
        """As `rows`."""
        return slice(self.kept[2] * unit, self.kept[3] * unit)

    def read_rows(self, unit: int) -> slice:
        """Of the whole photograph, of those that are read."""
        return slice(self.read[0] * unit, self.read[1] * unit)

    def read_columns(self, unit: int) -> slice:
        """As `read_rows`."""
        return slice(self.read[2] * unit, self.read[3] * unit)

    def inner_rows(self, unit: int) -> slice:
        """Of what is computed, of those kept."""
        return slice((self.kept[0] - self.read[0]) * unit, (self.kept[1] - self.read[0]) * unit)

    def inner_columns(self, unit: int) -> slice:
        """As `inner_rows`."""
        return slice((self.kept[2] - self.read[2]) * unit, (self.kept[3] - self.read[2]) * unit)


def parts(rows: int, columns: int, margin: int, size: int = PART) -> Iterator[Part]:
    """Parts of a photograph of `rows` times `columns` blocks; a small one is a single part.

    Args:
        rows, columns: blocks.
        margin: blocks.
        size: blocks a side that are kept of a part.
    """
    for top, bottom, first, last in _spans(rows, margin, size):
        for left, right, start, end in _spans(columns, margin, size):
            yield Part(read=(first, last, start, end), kept=(top, bottom, left, right))


def _spans(blocks: int, margin: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(kept from, to, read from, to)."""
    for start in range(0, blocks, size):
        end = min(start + size, blocks)
        yield start, end, max(0, start - margin), min(blocks, end + margin)
