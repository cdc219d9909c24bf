"""What distillation was worth: distilled trials against controls of several starts, as HTML.

A control is trained on the rate-distortion loss alone: from a random start, a slice of the teacher or a refitted one.
So the differences between controls are what a start is worth, and the difference to the control of the same start is
what the losses are worth.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from orchestrator.report.html import Judged, html_table
from orchestrator.report.run_files import RunFiles
from orchestrator.results.account import Account
from orchestrator.trials.record import Rung, TrialRecord

STARTS = {"random": "random start", "teacher-slice": "slice", "teacher-refit": "refitted", "file": "same file"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The distilled trials of one student that begin with the same weights, and the controls to compare them with."""

    name: str
    start: str  # of the distilled trials: a key of `STARTS`
    distilled: list[TrialRecord] = field(default_factory=list)
    controls: dict[str, list[TrialRecord]] = field(default_factory=dict)  # by start


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group at one rung."""

    group: Group
    images: int
    valid: bool  # BD-rates in percent; else 100 ln J ratios
    controls: Mapping[str, float]  # by start, the best of each
    distilled: Sequence[tuple[float, str]]  # value and trial, the best first

    @property
    def best(self) -> float:
        """The best distilled trial's value."""
        return self.distilled[0][0]


def equal_images(run: RunFiles) -> str:
    """A table of all rungs that both a control and a distilled trial reached, and what its last rows say in words."""
    rows = rows_of(run.trials)
    if not rows:
        return '<p class="quiet">No rung was reached both by a control and by a trial with distillation.</p>'
    starts = [start for start in STARTS if any(start in row.controls for row in rows)]
    head = ["student", "images seen", "measure", *(f"control: {STARTS[start]}" for start in starts)]
    head += ["distilled trials", "best of them", *(f"best - {STARTS[start]}" for start in starts)]
    head += ["median - same start", "best trial"]
    cells = []
    for row in rows:
        same = row.controls.get(row.group.start)
        median = statistics.median(value for value, _ in row.distilled)
        cells.append(
            [
                row.group.name,
                f"{row.images:,}",
                "BD-rate %" if row.valid else "100 ln J ratio",
                *(_signed(row.controls.get(start)) for start in starts),
                len(row.distilled),
                _signed(row.best),
                *(_judged(row.best, row.controls.get(start)) for start in starts),
                _judged(median, same),
                row.distilled[0][1],
            ]
        )
    words = "".join(f"<li>{in_words(row)}</li>" for row in telling(rows))
    return f"<ul>{words}</ul>{html_table(head, cells, left=1, what='trials at equal images')}"


def telling(rows: Sequence[Row]) -> list[Row]:
    """Of each group the last row that all its controls reached, and the last row of all."""
    found = []
    for name in dict.fromkeys(row.group.name for row in rows):
        of_group = [row for row in rows if row.group.name == name]
        whole = [row for row in of_group if row.controls.keys() == row.group.controls.keys()]
        found += [*whole[-1:], *(of_group[-1:] if whole[-1:] != of_group[-1:] else ())]
    return found


def equal_wall_time(run: RunFiles) -> str:
    """A table of the distilled trials when they had taken as long as each control took in all; empty without account.

    Filling the cache and refitting are shared out over the trials that use them.
    """
    if run.account is None:
        return ""
    groups = [group for group in groups_of(run.trials) if group.controls]
    starts = [start for start in STARTS if any(start in group.controls for group in groups)]
    times_of = seconds_at_rungs(run.trials, run.account)
    cells = []
    for group in groups:
        row: list[object] = [group.name]
        for start in starts:
            found = []
            for control in group.controls.get(start, ()):
                seconds = times_of[control.trial_id][-1]
                curves = [(times_of[trial.trial_id], log_ratios(trial)) for trial in group.distilled]
                values = [value for curve in curves if (value := value_after(seconds, *curve)) is not None]
                if values:
                    found.append((seconds, 100 * (min(values) - log_ratios(control)[-1])))
            row += [f"{found[0][0]:,.1f}", Judged(min(gain for _, gain in found))] if found else ["", ""]
        cells.append(row)
    head = ["student"]
    for start in starts:
        head += [f"seconds, {STARTS[start]}", f"best - {STARTS[start]}"]
    return html_table(head, cells, left=1, what="trials at equal wall time") if cells else ""


def in_words(row: Row) -> str:
    """One sentence: what the start was worth, and what the losses."""

    def worth(gain: float, unit: bool = False) -> str:
        if row.valid:
            return f"{gain:+.1f}" + (" points of BD-rate" if unit else "")
        return f"a factor of {math.exp(gain / 100):.2f}" + (" in the cost J" if unit else "")

    text = f"{row.group.name}, {row.images:,} images: "
    parts = []
    same, random = row.controls.get(row.group.start), row.controls.get("random")
    if same is not None and random is not None and row.group.start != "random":
        start = STARTS[row.group.start]
        parts.append(f"the start ({start}) was worth {worth(random - same, unit=True)} over a random one")
    sliced = row.controls.get("teacher-slice")
    if same is not None and sliced is not None and row.group.start == "teacher-refit":
        parts.append(f"{worth(sliced - same)} over a slice")
    if same is not None:
        gain = worth(same - row.best, unit=not parts)
        parts.append(f"the losses on top of it {gain} (best of {len(row.distilled)})")
    return text + ", ".join(parts or ["no control of the same start"]) + "."


def groups_of(trials: Sequence[TrialRecord]) -> list[Group]:
    """The distilled trials with a rung, by student and start, each group with the controls of its student."""
    measured = [trial for trial in trials if trial.rungs]
    keys: dict[tuple[str, str, str | None], list[TrialRecord]] = {}
    for trial in measured:
        if trial.teacher is not None:
            keys.setdefault((trial.complexity_class, start_of(trial), trial.start_of), []).append(trial)
    groups = []
    for (name, start, teacher), distilled in keys.items():
        of_class = [key for key in keys if key[0] == name]
        controls: dict[str, list[TrialRecord]] = {}
        for trial in measured:
            comparable = teacher is None or trial.start_of in (None, teacher)
            if trial.teacher is None and trial.complexity_class == name and comparable:
                controls.setdefault(start_of(trial), []).append(trial)
        label = name + (f", {STARTS[start]}" if len(of_class) > 1 else "")
        label += f" of {teacher}" if len(of_class) > 1 and teacher is not None else ""
        groups.append(Group(name=label, start=start, distilled=distilled, controls=controls))
    return groups


def rows_of(trials: Sequence[TrialRecord]) -> list[Row]:
    """Each group at each rung that a distilled trial and a control reached."""
    rows = []
    for group in groups_of(trials):
        controls = [(start, trial) for start, of_start in group.controls.items() for trial in of_start]
        everyone = [*controls, *((None, trial) for trial in group.distilled)]
        for images in sorted({rung.images_seen for _, trial in everyone for rung in trial.rungs}):
            reached = [(s, t, rung) for s, t in everyone for rung in t.rungs if rung.images_seen == images]
            values, valid = _comparable([rung for *_, rung in reached])
            measured = [(value, start, trial) for value, (start, trial, _) in zip(values, reached, strict=True)]
            of_start: dict[str, float] = {}
            for value, start, _ in measured:
                if start is not None:
                    of_start[start] = min(value, of_start.get(start, math.inf))
            distilled = sorted((value, trial.trial_id) for value, start, trial in measured if start is None)
            if of_start and distilled:
                rows.append(Row(group=group, images=images, valid=valid, controls=of_start, distilled=distilled))
    return rows


def start_of(trial: TrialRecord) -> str:
    """The start of a trial: a key of `STARTS`."""
    return trial.init if trial.init in STARTS else "file"


def seconds_at_rungs(trials: Sequence[TrialRecord], account: Account) -> dict[str, list[float]]:
    """Trial -> seconds that it had trained at each rung.

    With its share of filling the cache, if it is distilled, and of refitting, if it starts refitted.
    """
    distilled = [trial.trial_id for trial in trials if trial.teacher is not None]
    refitted = [trial.trial_id for trial in trials if start_of(trial) == "teacher-refit"]
    shares = dict.fromkeys((trial.trial_id for trial in trials), 0.0)
    for phase, users in (("features", distilled), ("starts", refitted)):
        for user in users:
            shares[user] += account.phases_s.get(phase, 0.0) / len(users)
    return {
        trial.trial_id: [
            shares[trial.trial_id] + total for total in accumulate(rung.training_s for rung in trial.rungs)
        ]
        for trial in trials
    }


def log_ratios(trial: TrialRecord) -> list[float]:
    """A trial's ln J ratio at each rung."""
    return [rung.log_lagrangian_ratio for rung in trial.rungs]


def value_after(seconds: float, times: Sequence[float], values: Sequence[float]) -> float | None:
    """What a curve of values at some times has come to; None: before its first one.

    It is linear between them, which is not in the favour of a trial whose learning slows down.
    """
    place = bisect_right(times, seconds)
    if place == 0:
        return None
    if place == len(times):
        return values[-1]
    (early, late), (first, second) = times[place - 1 : place + 1], values[place - 1 : place + 1]
    return first + (seconds - early) / (late - early) * (second - first)


def _comparable(rungs: Sequence[Rung]) -> tuple[list[float], bool]:
    """BD-rates in percent, and True, if all are valid; else 100 times the log Lagrangian ratios."""
    rates = [rung.bd_rate_pct for rung in rungs if rung.bd_rate_pct is not None]
    if len(rates) == len(rungs):
        return rates, True
    return [100 * rung.log_lagrangian_ratio for rung in rungs], False


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _judged(value: float, control: float | None) -> object:
    return "" if control is None else Judged(value - control)
