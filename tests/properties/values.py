"""What users and files may hold that nobody meant: strategies that several properties draw from."""

from __future__ import annotations

import decimal
import fractions
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

# Text with what splits lines, ends a string in C, or belongs to a URL, a shell or YAML.
ODD_TEXT = st.text() | st.text(alphabet="\n\r\t\0\x85\u2028 %?#&:@'\"\\/.~${}[]*!|>-=,abc019é\ud800", max_size=30)

JSON_NUMBERS = st.integers() | st.integers(-(10**400), 10**400) | st.floats()

JSON = st.recursive(
    st.none() | st.booleans() | JSON_NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXT, inner, max_size=4),
    max_leaves=8,
)

WHOLE = st.integers(-(2**31), 2**31 - 1)
REAL = st.floats(width=32)
# Numbers as libraries have them.
NUMPY_WHOLE: st.SearchStrategy[Any] = st.one_of(
    WHOLE,
    WHOLE.map(np.int64),
    WHOLE.map(np.int32),
    WHOLE.map(np.asarray),
    WHOLE.map(torch.tensor),
    WHOLE.map(lambda value: pd.Series([value]).iloc[0]),
)
NUMPY_REAL: st.SearchStrategy[Any] = st.one_of(
    REAL,
    REAL.map(np.float64),
    REAL.map(np.float32),
    REAL.map(np.asarray),
    REAL.map(torch.tensor),
    REAL.map(np.longdouble),
    st.fractions().map(fractions.Fraction),
    st.decimals(),
)
NO_NUMBER: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.booleans().map(np.bool_),
    ODD_TEXT,
    st.binary(max_size=5),
    st.complex_numbers(),
    st.lists(WHOLE, max_size=3),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.just(np.datetime64("2026-01-01")),
    st.just(decimal.Decimal("sNaN")),
    st.just(object()),
    st.just(torch.zeros(2)),
    st.just(np.zeros((1, 1))),
)


def is_one_line(message: str) -> bool:
    """Whether a message is one line, and not an empty one."""
    return len(message.splitlines()) == 1 and message.strip() != ""
