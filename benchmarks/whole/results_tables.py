"""The tables of RESULTS.md as Markdown (pure), from the result files of the teachers and of the studies."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.whole import gains, savings
from benchmarks.whole.study import CONTROL, Goals, Row, images_of, is_control, loss_of, parted
from orchestrator.registry.model_card import table
from orchestrator.report.distillation import STARTS as START_NAMES

STARTS = {gains.RANDOM: "random start", gains.SLICE: "slice of the teacher", gains.REFITTED: "refitted start"}
LEAST_TRIALS = 5  # of a sweep whose rule is asked what it would have stopped
AGAINST = ("JPEG", "WebP", "bmshj2018-hyperprior", "mbt2018-mean")


GOALS = {
    "a_against_published_webp_pct": "teacher (a) against WebP as published, BD-rate in %",
    "a_against_published_hyperprior_pct": "teacher (a) against the published hyperprior, BD-rate in %",
    "b_against_a_pct": "teacher (b) against teacher (a), BD-rate in %",
    "prim_half_pct": "half of (a)'s width against (a), BD-rate in %",
    "prim_quarter_pct": "a quarter of (a)'s width against (a), BD-rate in %",
    "feds_cut_pct": "FEDS's cut of (b) against (b), BD-rate in %",
    "half_better_than_slice_points": "half the width: better than from a slice of the teacher, points of BD-rate",
    "half_better_than_refitted_points": "half the width: better than the refitted start alone, points of BD-rate",
}


def goals(goals: Goals, images: Mapping[str, int]) -> str:
    """What came, beside what was aimed at.

    Args:
        goals: by name.
        images: goal -> how many a student was trained on; a teacher's goal has none.
    """

    def cells(name: str, title: str) -> tuple[str, ...]:
        value, aim, at = (goals[name][part] for part in ("value", "goal", "at"))
        assert isinstance(aim, float)
        trained = f"{images[name]:,}" if name in images else ""
        if not isinstance(value, float):
            return title, trained, "none", f"at {at} {aim:+.1f}", ""
        reached = value <= aim if at == "most" else value >= aim
        return title, trained, f"{value:+.1f}", f"at {at} {aim:+.1f}", "yes" if reached else "no"

    return table(("what", "images", "value", "goal", "reached"), [cells(*goal) for goal in GOALS.items()])


def teachers(found: Mapping[str, Any]) -> str:
    """Teachers and classical codecs: BD-rates in percent against what columns name."""
    rates = {(rate["codec"], rate["against"]): rate["pct"] for rate in found["bd_rate"]}

    def cells(name: str) -> Iterator[str]:
        network = found["networks"].get(name)
        yield name
        yield f"{network['params']:,}" if network else ""
        yield f"{network['macs_per_pixel'] / 1e3:.1f}" if network else ""
        for other in AGAINST:
            yield _signed(rates.get((name, other)))

    head = ("codec", "parameters", "kMAC a pixel", *(f"against {name}" for name in AGAINST))
    return table(head, [tuple(cells(codec["name"])) for codec in found["codecs"]])


def methods(rows: Sequence[Row], teacher_macs: float) -> str:
    """BD-rate against the teacher in percent, the mean and the range over seeds: a row a method, a column a student."""
    sizes, students = _sizes(rows), _widest_first(rows)
    head = [f"{width(name)}: {sizes[name] / teacher_macs:.0%} of the MACs" for name in students]
    arms = sorted({row["arm"] for row in rows}, key=_place)
    lines = [(titled(arm), *(gains.bd_rate(rows, name, arm).shown for name in students)) for arm in arms]
    return table(("start and training", *head), lines)


def gained(studies: Sequence[Sequence[Row]]) -> str:
    """What each student's best method gains over the controls that start from the teacher."""

    def cells(rows: Sequence[Row], student: str, control: str) -> tuple[str, ...]:
        arm = best(rows, student)
        images = gains.at_equal_images(rows, student, arm, control)
        time = gains.at_equal_time(rows, student, arm, control)
        certain = [("yes" if gain.certain else "no") if gain.seeds > 1 else "" for gain in (images, time)]
        trained = f"{images_of(rows[0]):,}"
        return width(student), trained, titled(arm), titled(control), images.shown, certain[0], time.shown, certain[1]

    head = ("student", "images", "method", "over", "points of BD-rate", "above the spread", "100 ln J at equal time")
    lines = [
        cells(rows, student, control)
        for rows in studies
        for student in _widest_first(rows)
        for control in (gains.SLICE, gains.REFITTED)
        if gains.of_student(rows, student, control)
    ]
    return table((*head, "above the spread"), lines)


def costs(studies: Mapping[str, Any]) -> str:
    """What each sweep took, what early stopping would have left of it, and what a teacher in the loop would take."""

    def cells(name: str, study: Mapping[str, Any], sweep: Mapping[str, Any]) -> tuple[str, ...]:
        rows = [row for row in study["students"] if row["seed"] == sweep["seed"] and row["trial_id"] in sweep["trials"]]
        stopped = savings.stopped_early(rows) if len(rows) >= LEAST_TRIALS else None
        asked = sum(map(savings.images_with_teacher, rows))
        loop = savings.teacher_in_the_loop(sweep, study["settings"]["crops"]["count"], asked)
        shares = ("", "", "", "")
        if stopped is not None:
            kept = "yes" if stopped.best_kept else "no"
            shares = (f"{stopped.images:.0%}", f"{stopped.seconds:.0%}", f"{stopped.hypervolume:.1%}", kept)
        read_gb = sweep["bytes"]["features_read"] / 1e9
        hours = sweep["wall_s"] / 3600
        whole = (str(len(sweep["trials"])), f"{sweep['images']:,}", f"{hours:.2f}", f"{read_gb:.1f}")
        turnaround = sweep["turnaround_median_s"]
        between = "" if turnaround is None else f"{turnaround:.2f}"  # no slot had a second trial
        return (f"{name}, {sweep['seed']}", *whole, *shares, "" if loop is None else f"{loop:.2f}", between)

    head = ("study, seed", "trials", "images", "hours", "GB read", "stopped early: images", "time", "hypervolume")
    head_of_rest = ("best kept", "time with a teacher in the loop", "seconds from a trial to the next")
    return table(
        (*head, *head_of_rest),
        [cells(name, study, sweep) for name, study in studies.items() for sweep in study["sweeps"]],
    )


def best(rows: Sequence[Row], student: str) -> str:
    """The method with the lowest ln J on the validation photographs, the mean over its seeds; no control.

    Of the methods with the most seeds: the others were tried once, and left.
    """
    own = [row for row in rows if row["complexity_class"] == student and not is_control(row)]
    seeds = {arm: [row for row in own if row["arm"] == arm] for arm in sorted({row["arm"] for row in own})}
    most = max(map(len, seeds.values()))

    def mean(arm: str) -> float:
        return statistics.fmean(row["validation"][-1]["log_lagrangian_ratio"] for row in seeds[arm])

    return min((arm for arm in seeds if len(seeds[arm]) == most), key=mean)


def titled(arm: str) -> str:
    """An arm as a table names it: by its start, its preset, or its terms."""
    name, changed = parted(arm)
    if name in STARTS:
        return f"{STARTS[name]}, rate and distortion"
    if name:
        return f"`{name}`{', random start' if changed.get('start') == 'random' else ''}"
    loss = loss_of(arm)
    if not all(phase.apart for phase in loss.schedule):
        share = sum(phase.share for phase in loss.schedule if phase.apart)
        start = f"{STARTS[f'{CONTROL}, {START_NAMES[loss.own_start]}']}, " if loss.own_start else ""
        return f"{start}modules apart for {share:.0%}, then rate and distortion"
    terms = dict.fromkeys(term for phase in loss.schedule for term, weight in phase.weights if weight)
    return f"`{' + '.join(terms)}` of the teacher's latents"


def width(student: str) -> str:
    """A student as a table names it, by its N."""
    match = re.search(r"-n(\d+)", student)
    return f"N={match[1]}" if match else student


def _sizes(rows: Sequence[Row]) -> dict[str, float]:
    """Student -> multiply-accumulates a pixel."""
    return {row["complexity_class"]: row["macs_per_pixel"] for row in rows}


def _widest_first(rows: Sequence[Row]) -> list[str]:
    sizes = _sizes(rows)
    return sorted(sizes, key=lambda name: -sizes[name])


def _place(arm: str) -> tuple[int, str]:
    """Controls first, as STARTS has them."""
    name, _ = parted(arm)
    return (list(STARTS).index(name) if name in STARTS else len(STARTS), arm)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"
