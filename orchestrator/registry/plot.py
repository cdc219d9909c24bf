"""A student's rate-distortion curves as a picture (matplotlib without pyplot: no state, no display)."""

from __future__ import annotations

import io

import matplotlib
from matplotlib.figure import Figure

from orchestrator.registry.facts import SweepFacts
from orchestrator.results.front import CodedStudent
from orchestrator.trials.record import TrialRecord

INK, BLUE = "#1f2430", "#2563b8"


def rate_distortion(student: CodedStudent, record: TrialRecord | None, facts: SweepFacts) -> str:
    """An SVG: the student's coded curve, its estimated one, and the curve that its BD-rate is against."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    metric = facts.metric
    if facts.anchor is not None:
        coded = facts.anchor_coded
        anchor = facts.anchor.curve if coded is None else metric.curve(coded.points)
        axes.plot(
            *zip(*sorted(anchor), strict=True), color=INK, linestyle="--", label=f"teacher {facts.anchor.teacher}"
        )
    if student.points:
        curve = sorted(metric.curve(student.points))
        axes.plot(*zip(*curve, strict=True), color=BLUE, marker="o", label="coded")
    if record is not None and record.rungs and record.rungs[-1].points:
        estimated = sorted(metric.curve(record.rungs[-1].points))
        axes.plot(*zip(*estimated, strict=True), color=BLUE, linestyle=":", marker="x", label="estimated")
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(f"{metric.label}, dB")
    axes.set_title(student.trial_id, fontsize=10)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False, loc="lower right")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": student.trial_id, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
