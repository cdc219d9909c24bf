"""Figures that are only ever compared side by side: what is to be compared runs in turn, in alternating order."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MINIMUM = 5  # pairs behind a ratio


def in_turn(
    arms: Mapping[str, Callable[[], dict[str, float]]], rounds: int, say: Callable[[str], None]
) -> list[dict[str, dict[str, float]]]:
    """Every arm once a round, every second round backwards (ABBA...), so that a drift of the machine meets all alike.

    Args:
        arms: name -> what to run; it returns its figures.
        rounds: how often.
        say: takes a line a round.
    """
    measured = []
    for index in range(rounds):
        order = list(arms)[:: 1 if index % 2 == 0 else -1]
        figures = {name: arms[name]() for name in order}
        measured.append({name: figures[name] for name in arms})
        say(f"  round {index + 1}/{rounds}: " + ", ".join(f"{name} {_shown(arm)}" for name, arm in figures.items()))
    return measured


def ratios(rounds: Sequence[Mapping[str, Mapping[str, float]]], over: str, under: str, field: str) -> dict[str, Any]:
    """The spread over rounds of one arm's figure over another's."""
    return spread([arms[over][field] / arms[under][field] for arms in rounds])


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Median, minimum and maximum of the values that there are, and all of them in order (None: there was none)."""
    known = [value for value in values if value is not None]
    return {
        "median": statistics.median(known) if known else None,
        "min": min(known, default=None),
        "max": max(known, default=None),
        "values": list(values),
    }


def _shown(figures: Mapping[str, float]) -> str:
    name, value = next(iter(figures.items()))
    return f"{value:.3g} {name}"
