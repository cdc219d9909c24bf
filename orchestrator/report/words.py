"""The question that a sweep was made for, answered in words: what did distillation bring?"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from html import escape

from orchestrator.report.distillation import STARTS, Row, rows_of
from orchestrator.report.run_files import RunFiles

CAUTION = (
    "Rates at rungs are estimated, and the best of several trials is favoured by chance, the median is not. "
    "Differences of about a point can be those of the seed."
)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the losses brought to one student: the last rung that both a control of the same start and they reached."""

    row: Row
    best: float  # the control less the best distilled trial; points of BD-rate, or 100 ln of a factor in the cost
    median: float

    @property
    def students(self) -> str:
        """Which students it is about."""
        return self.row.group.name

    def in_words(self, value: float) -> str:
        """A gain or loss with its unit, without its sign."""
        if self.row.valid:
            return f"{abs(value):.1f} points of BD-rate"
        return f"a factor of {math.exp(abs(value) / 100):.2f} in the cost J"


def gains_of(run: RunFiles) -> list[Gain]:
    """One for each group that has a control of its own start, BD-rates first, the largest gain first."""
    last: dict[str, Row] = {}
    for row in rows_of(run.trials):
        if row.group.start in row.controls:
            last[row.group.name] = row
    found = []
    for row in last.values():
        control = row.controls[row.group.start]
        median = statistics.median(value for value, _ in row.distilled)
        found.append(Gain(row=row, best=control - row.best, median=control - median))
    return sorted(found, key=lambda gain: (not gain.row.valid, -gain.best))


def answer(run: RunFiles) -> str:
    """The page's first paragraphs, as HTML."""
    gains = gains_of(run)
    text = f'<p class="answer">{escape(front_in_words(run))} {escape(gain_in_words(gains))}</p>'
    if len(gains) > 1:
        text += "<ul>" + "".join(f"<li>{escape(_each(gain))}</li>" for gain in gains) + "</ul>"
    return text + (f'<p class="quiet">{escape(CAUTION)}</p>' if gains else "")


def front_in_words(run: RunFiles) -> str:
    """How many of the front's students are distilled."""
    if not run.has_front:
        return "The front is not made yet: the sweep is training, or was interrupted."
    if not run.front:
        return "No student is on the front, as no coded curve has a valid BD-rate."
    total, distilled = len(run.front), sum(student.teacher is not None for student in run.front)
    if total == 1:
        return f"The one student on the front is {'distilled' if distilled else 'a control, not distilled'}."
    if distilled in (0, total):
        return f"{f'All {total}' if distilled else f'None of the {total}'} students on the front are distilled."
    return f"{distilled} of {total} students on the front {'is' if distilled == 1 else 'are'} distilled."


def gain_in_words(gains: list[Gain]) -> str:
    """The largest gain, or that there is none, or that nothing can be said."""
    if not gains:
        return (
            "What distillation gained cannot be said: no rung was reached both by a distilled trial and by a control "
            "that starts from the same weights."
        )
    best = gains[0]
    start = STARTS[best.row.group.start] + ("" if "start" in STARTS[best.row.group.start] else " start")
    at = f"at {best.students}, {best.row.images:,} images, over the {start} without it"
    many = len(best.row.distilled)
    trials = f"the best of {many} trials; their median {_signed(best)}" if many > 1 else "one trial"
    if best.best <= 0:
        return f"Distillation gained nothing: {at}, it lost {best.in_words(best.best)} ({trials})."
    most = "up to " if len(gains) > 1 else ""
    return f"Distillation gained {most}{best.in_words(best.best)} {at} ({trials})."


def _signed(gain: Gain) -> str:
    return f"{'lost' if gain.median <= 0 else 'gained'} {gain.in_words(gain.median)}"


def _each(gain: Gain) -> str:
    what = f"{'lost' if gain.best <= 0 else 'gained'} {gain.in_words(gain.best)}"
    many = len(gain.row.distilled)
    rest = f" (best of {many}; the median {_signed(gain)})" if many > 1 else ""
    return f"{gain.students}, {gain.row.images:,} images: {what}{rest}."
