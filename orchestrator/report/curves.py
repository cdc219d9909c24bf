"""Charts of rate-distortion: the anchor, the front, other teachers and classical codecs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.report.chart import COLOURS, INK, ORANGE, QUIET, Chart, Look, Mark, Series, Symbol
from orchestrator.report.run_files import RunFiles, bd_rate_of, points_of
from orchestrator.trials.record import TrialRecord

SYMBOLS: Sequence[Symbol] = ("circle", "square", "up", "down")


def rate_distortion(run: RunFiles) -> Chart:
    """RD curves: the anchor dashed, other teachers dashed in grey, codecs dotted, the front, and the best control."""
    quality = f"{run.metric.label}, dB"
    anchor = f"{run.anchor.teacher} (anchor{'' if run.anchor_coded else ', estimated'})"
    marks = [_mark(run, anchor, *point) for point in run.anchor_points]
    series = [Series(label=anchor, look=Look(colour=INK, symbol="circle", size=4, line="dash"), marks=marks)]
    for place, student in enumerate(sorted(run.front, key=lambda student: student.macs_per_pixel)):
        look = Look(
            colour=COLOURS[place % len(COLOURS)], symbol=SYMBOLS[place // len(COLOURS) % len(SYMBOLS)], line="solid"
        )
        series.append(Series(label=student.trial_id, look=look, marks=_marks(run, student.trial_id, student.points)))
    control = best_control(run)
    if control is not None:
        points, coded = points_of(run, control)
        label = f"{control.trial_id} (best control{'' if coded else ', estimated'})"
        look = Look(colour=ORANGE, symbol="square", size=6, line="dot")
        series.append(Series(label=label, look=look, marks=_marks(run, label, points)))
    for place, curve in enumerate(run.references.curves if run.references else ()):
        teacher = curve.kind == "teacher"
        look = Look(
            colour=QUIET, symbol=SYMBOLS[place % len(SYMBOLS)], size=5, line="dash" if teacher else "dot", width=1.2
        )
        series.append(Series(label=curve.name, look=look, marks=_marks(run, curve.name, curve.points)))
    named = ", ".join(one.label for one in series)
    x_range, y_range = _window(series[: len(series) - len(_codecs(run))], series)
    return Chart(
        name="rate-distortion",
        title=f"Rate-distortion curves: {quality} over bits per pixel, of {named}",
        x_label="bits per pixel",
        y_label=quality,
        series=series,
        x_range=x_range,
        y_range=y_range,
    )


def _window(ours: Sequence[Series], every: Sequence[Series]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The rates of learned codecs, and all qualities there: classical ones are measured far beyond."""
    rates = [mark.x for one in ours for mark in one.marks]
    room = 0.05 * (max(rates) - min(rates))
    low, high = min(rates) - room, max(rates) + room
    qualities = [mark.y for one in every for mark in one.marks if low <= mark.x <= high]
    margin = 0.05 * (max(qualities) - min(qualities))
    return (low, high), (min(qualities) - margin, max(qualities) + margin)


def best_control(run: RunFiles) -> TrialRecord | None:
    """The control with the best BD-rate; None: there is none, or the front has it."""
    controls = [trial for trial in run.trials if trial.teacher is None and trial.rungs]
    ranked = [(value, trial) for trial in controls if (value := bd_rate_of(run, trial)) is not None]
    if not ranked:
        return None
    _, best = min(ranked, key=lambda entry: entry[0])
    return None if best.trial_id in {student.trial_id for student in run.front} else best


def _codecs(run: RunFiles) -> list[str]:
    return [curve.name for curve in run.references.curves if curve.kind == "codec"] if run.references else []


def _marks(run: RunFiles, name: str, points: Iterable[CurvePoint]) -> list[Mark]:
    placed = [(point.rate_point, *run.metric.pair(point)) for point in points]
    return [_mark(run, name, *point) for point in sorted(placed, key=lambda point: point[1])]


def _mark(run: RunFiles, name: str, rate_point: int | float, bpp: float, quality: float) -> Mark:
    return Mark(bpp, quality, f"{name}\n{rate_name(run, rate_point, name)}\n{bpp:.3f} bpp, {quality:.2f} dB")


def rate_name(run: RunFiles, rate_point: int | float, name: str = "") -> str:
    """What a rate point is called: with its lambda, as a gain, or as a codec's quality."""
    if name in _codecs(run):
        return f"quality {rate_point}"
    if isinstance(rate_point, float):
        return f"gain {rate_point:.3f}"
    lambdas = run.anchor.lambdas
    return f"rate point {rate_point}" + (f", lambda {lambdas[rate_point]:g}" if rate_point < len(lambdas) else "")
