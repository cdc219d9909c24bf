"""Numbers as Python, NumPy, pandas, JSON and torch have them, made plain (pure)."""

from __future__ import annotations

from decimal import Decimal
from numbers import Integral, Real
from typing import SupportsFloat, SupportsIndex

from models.one_line import one_line

Numeric = SupportsIndex | SupportsFloat  # whatever a caller's library has for a number


def plain_number(value: object) -> int | float:
    """A whole number as an int, any other real number as a float; what decides is its type: 1.0 is a float.

    Takes the numbers of Python, NumPy, pandas and torch, and arrays and tensors without dimensions.

    Raises:
        ValueError: it is no number, as booleans are none, or too large for a float; one line with the value.
    """
    if type(value) is int or type(value) is float:
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        pass
    elif isinstance(value, Integral):
        return int(value)
    elif isinstance(value, (Real, Decimal)):
        try:
            return float(value)
        except (OverflowError, ValueError):  # of a fraction, or a Decimal that signals
            pass
    raise ValueError(f"{shown(value)} is not a number")


def plain_real(value: object) -> float:
    """A number of either kind as a float. Raises ValueError as `plain_number`."""
    try:
        return float(plain_number(value))
    except OverflowError:
        raise ValueError(f"{shown(value)} is not a number that a float can be") from None


def whole_number(value: object, name: str) -> int:
    """The int that a value is. Raises ValueError with one line that has the name."""
    if not isinstance(number := plain_number(value), int):
        raise ValueError(f"{name} {number} is not a whole number")
    return number


def shown(value: object) -> str:
    """A value as a message shows it: short, and on one line."""
    try:
        text = one_line(repr(value))
    except Exception:  # a class may raise anything, and an int of thousands of digits has no text
        text = f"a {type(value).__name__} without a text"
    return text if len(text) <= 80 else f"{text[:77]}..."
