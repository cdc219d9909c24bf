"""Frequencies of symbols, as whole numbers, and the range coder that codes by them.

The range coder is constriction's. Its categorical model is made of whole-number frequencies by additions,
multiplications and roundings alone, which are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from lic_codec.errors import CodecError

Symbols = npt.NDArray[np.int32]
Indexes = npt.NDArray[np.uint16]

LONGEST_SYMBOL = 1 << 17  # the encoder limits symbols to this size
LENGTHS = 21  # of escapes, in bits: 0 to 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """How often each symbol occurs.

    Attributes:
        lowest: the symbol of the first frequency.
        frequencies: uint32, at least 1 each; the last one is of all other symbols, which are escaped.
    """

    lowest: int
    frequencies: npt.NDArray[np.uint32]

    @cached_property
    def model(self) -> Any:
        """constriction's model."""
        return constriction.stream.model.Categorical(self.frequencies.astype(np.float64), perfect=False)

    @property
    def escape(self) -> int:
        """The place of the last frequency."""
        return len(self.frequencies) - 1

    @property
    def least_bits(self) -> float:
        """Of the likeliest symbol."""
        return math.log2(float(self.frequencies.sum()) / float(self.frequencies.max()))


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """Tables of rounded normal distributions, one for each of the scales.

    Attributes:
        scales: float64, rising; standard deviations in steps of the quantiser.
        tables: of each scale.
    """

    scales: npt.NDArray[np.float64]
    tables: tuple[Table, ...]

    @cached_property
    def least_bits(self) -> float:
        """Of the likeliest symbol of all tables."""
        return min(table.least_bits for table in self.tables)


@lru_cache(maxsize=1)
def gaussians() -> Gaussians:
    """The tables that all models share, from the file that lies beside this one.

    `tools/gaussian_tables.py` made it. They are read, not computed: another machine's exp could round otherwise.
    """
    with np.load(Path(__file__).with_name("gaussians.npz"), allow_pickle=False) as stored:
        scales, lengths, halves = stored["scales"], stored["lengths"], stored["halves"]
    tables = []
    for half in np.split(halves, np.cumsum(lengths)[:-1]):  # frequencies of 0, 1, 2, ...; then of the escape
        frequencies = np.concatenate((half[-2:0:-1], half[:-1], half[-1:])).astype(np.uint32)
        tables.append(Table(lowest=-(len(half) - 2), frequencies=frequencies))
    return Gaussians(scales=scales, tables=tuple(tables))


class SymbolEncoder:
    """Codes arrays of symbols, one after the other."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, indexes: Indexes, tables: Sequence[Table]) -> None:
        """Codes an array: the symbols of each table, then what is escaped.

        Args:
            symbols: [n], of at most `LONGEST_SYMBOL`.
            indexes: [n], the table of each.
            tables: that the indexes are of.
        """
        distances = np.full(len(symbols), -1, np.int64)  # of escaped symbols from their table, see `_folded`
        for table, places in _places(indexes, tables):
            coded = symbols[places] - table.lowest
            outside = (coded < 0) | (coded >= table.escape)
            if outside.any():
                distances[places[outside]] = _folded(coded[outside], table)
            self._coder.encode(np.where(outside, table.escape, coded).astype(np.int32), table.model)
        escapes = distances[distances >= 0]
        if len(escapes):
            lengths = np.frexp((escapes + 1).astype(np.float64))[1] - 1
            self._coder.encode(lengths.astype(np.int32), _lengths())
            for length in range(1, LENGTHS):
                low = (escapes + 1)[lengths == length] - (1 << length)
                if len(low):
                    self._coder.encode(low.astype(np.int32), _raw(length))

    def payload(self) -> bytes:
        """All that was coded: whole words of 32 bits, the least significant byte first."""
        words: npt.NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes()


class SymbolDecoder:
    """The inverse of `SymbolEncoder`."""

    def __init__(self, payload: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))

    def decode(self, indexes: Indexes, tables: Sequence[Table]) -> Symbols:
        """The next array, of as many symbols as there are indexes; see `SymbolEncoder.encode`.

        Raises CodecError: no encoder wrote this.
        """
        symbols = np.empty(len(indexes), np.int32)
        for table, places in _places(indexes, tables):
            symbols[places] = self._next(table.model, len(places)) + table.lowest
        highest = np.array([table.lowest + table.escape for table in tables], np.int32)[indexes]
        (escaped,) = np.nonzero(symbols == highest)
        if len(escaped):
            lengths = self._next(_lengths(), len(escaped))
            folded = (1 << lengths.astype(np.int64)) - 1
            for length in range(1, LENGTHS):
                if count := int((lengths == length).sum()):
                    folded[lengths == length] += self._next(_raw(length), count)
            lowest = np.array([table.lowest for table in tables], np.int32)[indexes[escaped]]
            values = np.where(folded % 2 == 0, highest[escaped] + folded // 2, lowest - 1 - folded // 2)
            symbols[escaped] = np.clip(values, -LONGEST_SYMBOL, LONGEST_SYMBOL)
        return symbols

    def _next(self, model: Any, count: int) -> npt.NDArray[np.int32]:
        try:
            decoded: npt.NDArray[np.int32] = self._coder.decode(model, count)
        except AssertionError as error:  # constriction's word for data that its encoder does not write
            raise CodecError("damaged stream: symbols that no encoder writes") from error
        return decoded


def _folded(coded: Symbols, table: Table) -> npt.NDArray[np.int64]:
    """How far symbols outside a table are from it: even above it, odd below it."""
    above = coded.astype(np.int64) - table.escape
    return np.where(above >= 0, 2 * above, 2 * (-1 - coded.astype(np.int64)) + 1)


def _places(indexes: Indexes, tables: Sequence[Table]) -> Iterator[tuple[Table, npt.NDArray[np.intp]]]:
    """Each table that is in use with the places of its symbols, in order: symbols are coded a table at a time."""
    order = np.argsort(indexes, kind="stable")
    ends = np.cumsum(np.bincount(indexes, minlength=len(tables)))
    for table, start, end in zip(tables, (0, *ends[:-1]), ends, strict=True):
        if start != end:
            yield table, order[start:end]


@lru_cache(maxsize=1)
def _lengths() -> Any:
    """Of escapes: a length of n bits has a share of 2^-(n + 1)."""
    shares = 2.0 ** -np.arange(1, LENGTHS + 1)
    return constriction.stream.model.Categorical(shares, perfect=False)


@lru_cache(maxsize=LENGTHS)
def _raw(bits: int) -> Any:
    return constriction.stream.model.Uniform(1 << bits)
