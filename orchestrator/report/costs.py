"""What a network costs, in words and units: the axes of a front beside BD-rate, and how much it dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from orchestrator.evaluation.front import hypervolume
from orchestrator.report.run_files import RunFiles
from orchestrator.spec.sections import Axis, MeasuredAxis

WORST_PCT = 100.0  # of the hypervolume's reference: a network that needs twice the anchor's bits is of no use
LEAST_SHARE = 0.01  # of the teacher's costs: where the hypervolume's box ends, cheaper than any student so far
NO_TEACHER = 1.1  # times the costliest coded trial, where the teacher's own cost is not known


class Priced(Protocol):
    """A trial, a student of the front, or a pair."""

    @property
    def params(self) -> int: ...
    @property
    def macs_per_pixel(self) -> float: ...
    @property
    def encoder_macs_per_pixel(self) -> float: ...
    @property
    def decoder_macs_per_pixel(self) -> float: ...
    @property
    def encode_ms_per_megapixel(self) -> float | None: ...
    @property
    def decode_ms_per_megapixel(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An axis."""

    words: str  # in a sentence
    label: str  # beside an axis
    unit: str
    scale: float = 1.0  # so much of the record's own unit is one of `unit`


COSTS: Mapping[Axis, Cost] = {
    "macs_per_pixel": Cost(
        words="MACs per pixel of coding and decoding",
        label="kMACs per pixel, coding and decoding",
        unit="kMACs per pixel",
        scale=1e3,
    ),
    "encoder_macs_per_pixel": Cost(
        words="the encoder's MACs per pixel", label="kMACs per pixel, encoder", unit="kMACs per pixel", scale=1e3
    ),
    "decoder_macs_per_pixel": Cost(
        words="the decoder's MACs per pixel", label="kMACs per pixel, decoder", unit="kMACs per pixel", scale=1e3
    ),
    "params": Cost(words="parameters", label="parameters, thousands", unit="thousand parameters", scale=1e3),
    "encode_ms_per_megapixel": Cost(
        words="milliseconds of encoding", label="ms per megapixel, encoding by one thread", unit="ms per megapixel"
    ),
    "decode_ms_per_megapixel": Cost(
        words="milliseconds of decoding", label="ms per megapixel, decoding by one thread", unit="ms per megapixel"
    ),
}


def cost_of(entry: Priced, axis: Axis) -> float | None:
    """In the unit of `COSTS`; None: not measured."""
    value: float | None = getattr(entry, axis)
    return None if value is None else value / COSTS[axis].scale


def known_axes(run: RunFiles, entries: Sequence[Priced]) -> tuple[Axis, ...]:
    """The axes on which all entries have a place: those of the front first."""
    ordered = dict.fromkeys([*run.axes, *COSTS])
    return tuple(axis for axis in ordered if all(cost_of(entry, axis) is not None for entry in entries))


def front_of(axes: Sequence[Axis]) -> str:
    """What a front is of, in words."""
    *others, last = ["BD-rate", *(COSTS[axis].words for axis in axes)]
    return f"{', '.join(others)} and {last}"


def costs_in_words(entry: Priced) -> str:
    """All that is known of an entry's costs."""
    total, encoder, decoder = (
        entry.macs_per_pixel / 1e3,
        entry.encoder_macs_per_pixel / 1e3,
        entry.decoder_macs_per_pixel / 1e3,
    )
    text = f"{total:.2f} kMACs per pixel (encoder {encoder:.2f}, decoder {decoder:.2f}), {entry.params:,} parameters"
    if entry.encode_ms_per_megapixel is not None and entry.decode_ms_per_megapixel is not None:
        encode, decode = entry.encode_ms_per_megapixel, entry.decode_ms_per_megapixel
        text += f"\nby one thread {encode:.1f} ms to encode a megapixel, {decode:.1f} to decode it"
    return text


def hypervolume_in_words(run: RunFiles) -> str:
    """How much the front dominates, of what, and what that can be compared with; "": there is no front."""
    front = [
        [student.bd_rate_pct, *costs]
        for student in run.front
        if student.bd_rate_pct is not None and (costs := _costs(student, run.axes)) is not None
    ]
    if not front:
        return ""
    teachers = None if run.anchor_complexity is None else _costs(run.anchor_complexity, run.axes)
    coded = [costs for student in run.coded.values() if (costs := _costs(student, run.axes)) is not None]
    worst = teachers or [
        NO_TEACHER * max(column) for column in zip(*(coded or [row[1:] for row in front]), strict=True)
    ]
    share = _share(front, worst)
    edges = " and ".join(f"{value:,.2f} {COSTS[axis].unit}" for axis, value in zip(run.axes, worst, strict=True))
    text = (
        f"Hypervolume of the front of {front_of(run.axes)}: {100 * share:.1f} % of the box from 0 to "
        f"+{WORST_PCT:.0f} % of BD-rate and, in logarithms, from a hundredth of "
    )
    if teachers:
        same = "anchor" if set(run.axes).isdisjoint(get_args(MeasuredAxis)) else "anchor, timed on such a machine"
        return f"{text}the teacher's cost ({edges}) to all of it: the same box for every sweep with this {same}."
    return (
        f"{text}{edges} to all of it. The teacher's cost is not known, so that is {NO_TEACHER} times the costliest "
        "coded trial's: compare it with sweeps of the same students alone."
    )


def _share(front: Sequence[Sequence[float]], worst: Sequence[float]) -> float:
    """Of the box; what of a front leaves it on the better side counts as well, so it may be above 1."""
    placed = [
        (rate, *(math.log(cost / most) for cost, most in zip(costs, worst, strict=True))) for rate, *costs in front
    ]
    whole = WORST_PCT * math.log(1 / LEAST_SHARE) ** len(worst)
    return hypervolume(placed, (WORST_PCT, *(0.0 for _ in worst))) / whole


def _costs(entry: Priced, axes: Sequence[Axis]) -> list[float] | None:
    """On each axis; None: one of them was not measured."""
    found = [cost_of(entry, axis) for axis in axes]
    known = [cost for cost in found if cost is not None]
    return known if len(known) == len(found) else None
