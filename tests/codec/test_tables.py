"""Frequencies and the range coder: what is encoded is decoded, at the bits that frequencies promise; any bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from lic_codec.errors import CodecError
from lic_codec.tables import LONGEST_SYMBOL, SymbolDecoder, SymbolEncoder, Table, gaussians


def test_tables_are_of_rounded_normal_distributions():
    found = gaussians()
    expected = np.exp(np.linspace(np.log(0.11), np.log(256), 64))  # CompressAI's scales
    assert found.scales == pytest.approx(expected, rel=1e-5)
    for scale, table in zip(found.scales, found.tables, strict=True):
        symbols = table.lowest + np.arange(table.escape)
        shares = norm.cdf(symbols + 0.5, scale=scale) - norm.cdf(symbols - 0.5, scale=scale)
        counts = table.frequencies[:-1].astype(float)
        assert np.abs(counts - np.maximum(shares * 2**20, 1)).max() < 1
        assert np.array_equal(symbols, -symbols[::-1]) and table.frequencies[-1] >= 16


SMALL = Table(lowest=-1, frequencies=np.array([10, 1000, 10, 1], np.uint32))
SYMBOLS = st.lists(st.integers(-LONGEST_SYMBOL, LONGEST_SYMBOL) | st.integers(-4, 4), max_size=40)


@given(SYMBOLS, st.randoms(use_true_random=False))
def test_what_is_encoded_is_decoded_escapes_as_well(symbols, random):
    tables = (SMALL, *gaussians().tables)
    indexes = np.array([random.randrange(len(tables)) for _ in symbols], np.uint16)
    values = np.array(symbols, np.int32)
    coder = SymbolEncoder()
    coder.encode(values, indexes, tables)
    coder.encode(values[::-1].copy(), indexes[::-1].copy(), tables)
    decoder = SymbolDecoder(coder.payload())
    assert decoder.decode(indexes, tables).tolist() == symbols
    assert decoder.decode(indexes[::-1].copy(), tables).tolist() == symbols[::-1]


def test_streams_are_as_long_as_the_entropy():
    rng = np.random.default_rng(0)
    indexes = rng.integers(10, 60, 100_000).astype(np.uint16)
    scales = gaussians().scales[indexes]
    symbols = np.round(rng.normal(0, 1, len(indexes)) * scales).astype(np.int32)
    coder = SymbolEncoder()
    coder.encode(symbols, indexes, gaussians().tables)
    shares = norm.cdf((symbols + 0.5) / scales) - norm.cdf((symbols - 0.5) / scales)
    assert 8 * len(coder.payload()) == pytest.approx(-np.log2(shares).sum(), rel=2e-4)


def test_bytes_are_the_same_on_every_machine():
    symbols = (np.arange(300) % 11 - 5).astype(np.int32)
    coder = SymbolEncoder()
    coder.encode(symbols, (np.arange(300) % 64).astype(np.uint16), gaussians().tables)
    assert hashlib.sha256(coder.payload()).hexdigest()[:16] == "12310e55602ffbf0"


@given(st.binary(max_size=400).map(lambda data: data[: len(data) // 4 * 4]))
def test_any_bytes_are_symbols_or_one_error(data):
    try:
        found = SymbolDecoder(data).decode((np.arange(2000) % 64).astype(np.uint16), gaussians().tables)
    except CodecError as error:
        assert str(error) == "damaged stream: symbols that no encoder writes"
    else:
        assert np.abs(found).max() <= LONGEST_SYMBOL
