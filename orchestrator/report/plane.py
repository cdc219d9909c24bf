"""The Pareto plane: BD-rate over a cost, every trial in it, coded and estimated apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.report.chart import BLUE, INK, ORANGE, QUIET, Chart, Look, Mark, Note, Series
from orchestrator.report.costs import COSTS, cost_of, costs_in_words, front_of, known_axes
from orchestrator.report.run_files import RunFiles, bd_rate_of, estimate_of, why_none
from orchestrator.report.tables import loss_in_words
from orchestrator.spec.sections import Axis
from orchestrator.trials.record import TrialRecord

ELSEWHERE = ": where one of these is drawn, a trial may be on it for the sake of another."
KINDS = ("on the front", "coded", "estimated", "estimated, stopped early", "estimated: coded curve not valid")


@dataclass(frozen=True)
class _Room:
    """The plane's height, by the trials that matter: others are drawn at its upper edge."""

    low: float
    top: float
    span: float  # of those that matter

    @classmethod
    def of(cls, every: Sequence[float], counted: Sequence[float]) -> _Room:
        """For BD-rates, at least one, and those of them that matter."""
        span = max(max(counted) - min(counted), 2.0)
        return cls(min(every) - 0.2 * span, max(counted) + 0.35 * span, span)


def views(run: RunFiles) -> list[Chart]:
    """The plane over each cost that all of its trials have, those of the front first; series have the same marks."""
    placed = [trial for trial in run.trials if height_of(run, trial) is not None]
    if not placed:
        return [pareto(run, run.axes[0])]
    return [pareto(run, axis) for axis in known_axes(run, placed)]


def pareto(run: RunFiles, axis: Axis) -> Chart:
    """BD-rate over a cost that all trials have. Those far above the ones that matter are arrows at the upper edge."""
    placed = [(trial, value) for trial in run.trials if (value := height_of(run, trial)) is not None]
    front = {student.trial_id for student in run.front}
    counted = [value for trial, value in placed if trial.trial_id in front or trial.status != "stopped"]
    every = [value for _, value in placed]
    room = _Room.of(every or [0.0], counted or every or [0.0])
    kinds: dict[tuple[str, bool], list[Mark]] = {}
    notes = []
    above = []
    for trial, value in placed:
        mark = Mark(cost_of(trial, axis) or 0.0, value, _told(run, trial))
        if value > room.top - 0.03 * room.span:
            above.append(Mark(mark.x, room.top - 0.05 * room.span, f"{mark.text}\noff the scale"))
        else:
            kinds.setdefault((kind_of(run, trial), trial.teacher is None), []).append(mark)
        if trial.trial_id in front:
            notes.append(Note(mark.x, mark.y, trial.trial_id))
    series = [_staircase(run, axis)] if front else []
    for kind in reversed(KINDS):  # the front is drawn last, over the others
        for control in (True, False):
            marks = kinds.get((kind, control), [])
            if marks:
                who = "control" if control else "distilled"
                series.append(Series(label=f"{kind}, {who}", look=look_of(kind, control), marks=marks))
    if above:
        look = Look(colour=QUIET, symbol="up", filled=False, size=7)
        series.append(Series(label="off the scale", look=look, marks=above))
    return Chart(
        name="pareto",
        title=f"BD-rate against the anchor over {COSTS[axis].label}: {len(placed)} trials, {len(front)} on the front",
        view=COSTS[axis].label,
        x_label=COSTS[axis].label,
        y_label="BD-rate against the anchor, %",
        series=series,
        notes=_apart(notes, room.top - room.low) if placed else (),
        y_range=(room.low, room.top) if placed else None,
    )


def height_of(run: RunFiles, trial: TrialRecord) -> float | None:
    """Where a trial is drawn: at its BD-rate; at the estimate if its coded curve is not valid."""
    value = bd_rate_of(run, trial)
    return estimate_of(trial) if value is None else value


def kind_of(run: RunFiles, trial: TrialRecord) -> str:
    """One of `KINDS`."""
    coded = run.coded.get(trial.trial_id)
    if coded is None:
        return KINDS[3] if trial.status == "stopped" else KINDS[2]
    if trial.trial_id in {student.trial_id for student in run.front}:
        return KINDS[0]
    return KINDS[1] if coded.bd_rate_pct is not None else KINDS[4]


def look_of(kind: str, control: bool) -> Look:
    """Filled: coded. Orange squares: controls."""
    size, filled, outlined, opacity = {
        KINDS[0]: (10.0, True, True, 1.0),
        KINDS[1]: (7.0, True, False, 1.0),
        KINDS[2]: (7.0, False, False, 1.0),
        KINDS[3]: (5.0, False, False, 0.6),
        KINDS[4]: (8.0, False, False, 1.0),
    }[kind]
    return Look(
        colour=ORANGE if control else BLUE,
        symbol="down" if kind == KINDS[4] else "square" if control else "circle",
        filled=filled,
        size=size,
        outlined=outlined,
        opacity=opacity,
    )


def caption(run: RunFiles) -> str:
    """What is drawn where, and every trial that is not: with its name and the reason."""
    coded = len(run.coded)
    text = "Lower and further left is better. "
    text += (
        f"{coded} {'trial was' if coded == 1 else 'trials were'} coded with real bitstreams, the others are estimated."
    )
    return f"{text} The front is of {front_of(run.axes)}{ELSEWHERE if len(run.axes) > 1 else '.'}"


def without_a_place(run: RunFiles) -> list[tuple[str, str]]:
    """(trial, why) of those without a valid BD-rate: coded ones that are drawn at their estimate, and missing ones."""
    found = []
    for trial in run.trials:
        why = why_none(run, trial)
        if why is not None:
            where = "not drawn" if estimate_of(trial) is None else "drawn at its estimate"
            found.append((trial.trial_id, f"{where}; {why}"))
    return found


def _apart(notes: Sequence[Note], height: float) -> list[Note]:
    """Names of marks that are near to each other stand below one another, the best mark's name last."""
    width = max((note.x for note in notes), default=0.0) - min((note.x for note in notes), default=0.0)
    found: list[Note] = []
    for note in sorted(notes, key=lambda note: -note.y):
        near = [other for other in found if abs(other.x - note.x) <= 0.15 * width and other.y - note.y < 0.05 * height]
        line = max((other.line + 1 for other in near), default=0)
        found.append(replace(note, line=line))
    return found


def _staircase(run: RunFiles, axis: Axis) -> Series:
    """Of a front of this cost alone; another one has no line here."""
    of_this = run.front if run.axes == (axis,) else ()
    places = sorted((cost_of(student, axis) or 0.0, student.bd_rate_pct or 0.0) for student in of_this)
    look = Look(colour=INK, line="solid", width=1.0, step="right first", opacity=0.45)
    return Series(label="the front", look=look, marks=[Mark(x, y, "") for x, y in places], listed=False)


def _told(run: RunFiles, trial: TrialRecord) -> str:
    coded, estimate = run.coded.get(trial.trial_id), estimate_of(trial)
    estimated = "none" if estimate is None else f"{estimate:+.2f} %"
    lines = [
        trial.trial_id,
        f"{'control' if trial.teacher is None else f'learns from {trial.teacher}'}: {loss_in_words_of(trial)}",
        f"{trial.status}, {trial.images_seen:,} images",
        costs_in_words(trial),
    ]
    if coded is None:
        lines.append(f"BD-rate estimated {estimated}")
    elif coded.bd_rate_pct is None:
        lines.append(f"BD-rate estimated {estimated}; coded none: {coded.bd_rate_reason}")
    else:
        lines.append(f"BD-rate coded {coded.bd_rate_pct:+.2f} %, estimated {estimated}")
    return "\n".join(lines)


def loss_in_words_of(trial: TrialRecord) -> str:
    """At most a line of it."""
    text = loss_in_words(trial.model_dump(mode="json", include={"loss"})["loss"])
    return text if len(text) <= 70 else text[:67] + "..."
