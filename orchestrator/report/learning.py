"""Charts of how trials learned: the cost at each rung, who went on, and what a search drew."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.report.chart import BLUE, ORANGE, QUIET, Chart, Look, Mark, Series, Symbol
from orchestrator.report.run_files import RunFiles
from orchestrator.trials.record import Rung, TrialRecord

WIDE = 30.0  # most over least, from which on a drawn number is placed by its logarithm
WHO = {True: "control", False: "distilled"}
WENT = {"continue": "goes on", "pause": "is paused", "stop": "is stopped", "end": "ends"}


def learning(run: RunFiles) -> Chart:
    """100 ln of the cost over the anchor's, at each rung; it is there for every curve, valid or not."""
    trials = [trial for trial in run.trials if trial.rungs]
    series: list[Series] = []
    for trial in trials:
        control = trial.teacher is None
        marks = [Mark(rung.images_seen, 100 * rung.log_lagrangian_ratio, _told(trial, rung)) for rung in trial.rungs]
        look = Look(
            colour=ORANGE if control else BLUE,
            symbol="square" if control else "circle",
            filled=trial.status != "stopped",
            size=5,
            line="dot" if control else "solid",
            width=1.2,
            opacity=0.75,
        )
        label = WHO[control] + (", stopped early" if trial.status == "stopped" else "")
        listed = label not in {one.label for one in series}
        series.append(Series(label=label, look=look, marks=marks, listed=listed))
    rungs = sorted({mark.x for one in series for mark in one.marks})
    return Chart(
        name="learning",
        title=f"Cost over the anchor's at each rung, of {len(trials)} trials: it falls as they learn",
        x_label="images seen",
        y_label="100 ln(J / J of the anchor)",
        series=series,
        x_ticks=[(images, f"{images:,.0f}") for images in rungs] if rungs else None,
        y_range=_heights_that_matter(trials),
        log_x=len(rungs) > 1,
    )


def _heights_that_matter(trials: Sequence[TrialRecord]) -> tuple[float, float] | None:
    """Of the trials that were not stopped; None: of all, as the others do not lie far above."""
    every = [100 * rung.log_lagrangian_ratio for trial in trials for rung in trial.rungs]
    kept = [100 * rung.log_lagrangian_ratio for trial in trials if trial.status != "stopped" for rung in trial.rungs]
    if not kept or max(every) <= 2 * max(kept) - min(kept):
        return None
    span = max(max(kept) - min(kept), 1.0)
    return min(every) - 0.1 * span, max(kept) + 0.25 * span


def survival(run: RunFiles) -> Chart:
    """How many trials were trained up to each rung."""
    rungs = sorted({rung.images_seen for trial in run.trials for rung in trial.rungs})
    series = []
    for control in (False, True):
        trials = [trial for trial in run.trials if (trial.teacher is None) is control and trial.rungs]
        if not trials:
            continue
        marks = [Mark(0, len(trials), "")]
        for images in rungs:
            count = sum(rung.images_seen == images for trial in trials for rung in trial.rungs)
            stopped = [trial.trial_id for trial in trials if _stopped_at(trial) == images]
            text = f"{WHO[control]}: {count} of {len(trials)} reached {images:,} images"
            text += "".join(f"\nstopped here: {name}" for name in stopped[:12])
            marks.append(Mark(images, count, text + ("\n..." if len(stopped) > 12 else "")))
        symbol: Symbol = "square" if control else "circle"
        look = Look(
            colour=ORANGE if control else BLUE, symbol=symbol, line="dot" if control else "solid", step="right last"
        )
        series.append(Series(label=WHO[control], look=look, marks=marks))
    return Chart(
        name="survival",
        title="Trials that reached each rung, distilled ones and controls",
        x_label="images seen",
        y_label="trials that came so far",
        series=series,
        x_ticks=[(images, f"{images:,}") for images in rungs] if rungs else None,
        y_range=(0.0, 1.1 * max((mark.y for one in series for mark in one.marks), default=1.0)),
    )


def drawn(run: RunFiles) -> Chart | None:
    """Parallel coordinates of what the search drew, the last axis the cost; None: nothing was drawn."""
    trials = [trial for trial in run.trials if trial.choices and trial.rungs]
    if not trials:
        return None
    names = list(dict.fromkeys(name for trial in trials for name in trial.choices))
    columns: list[list[float | str | None]] = [[trial.choices.get(name) for trial in trials] for name in names]
    costs = [100 * trial.rungs[-1].log_lagrangian_ratio for trial in trials]
    heights = [*map(_scaled, columns), _scaled(costs)]
    order = sorted(range(len(trials)), key=lambda place: -costs[place])  # the best is drawn last
    best = set(order[-max(1, len(trials) // 4) :])
    series: list[Series] = []
    for place in order:
        trial, good = trials[place], place in best
        label = "the best quarter" if good else "other trials"
        text = f"{trial.trial_id}\n" + "\n".join(f"{name}: {_short(value)}" for name, value in trial.choices.items())
        text += f"\n100 ln J ratio {costs[place]:+.2f} at {trial.images_seen:,} images"
        marks = [
            Mark(axis, height, text) for axis, column in enumerate(heights) if (height := column[place]) is not None
        ]
        look = Look(colour=BLUE if good else QUIET, symbol="circle", size=5, line="solid", width=1.4, opacity=0.8)
        listed = label not in {one.label for one in series}
        series.append(Series(label=label, look=look, marks=marks, listed=listed))
    ends = [*map(_ends, columns), _ends(costs)]
    ticks = [
        (place, f"{name}\n{low} to {high}")
        for place, (name, (low, high)) in enumerate(zip([*names, "100 ln J ratio"], ends, strict=True))
    ]
    return Chart(
        name="drawn",
        title=f"What the search drew for {len(trials)} trials, and the cost at its last rung: a line for each trial",
        x_label="what was drawn, from its lowest value or first name (bottom) to its highest (top)",
        y_label="",
        series=series,
        x_ticks=ticks,
        x_range=(-0.3, len(names) + 0.3),
        y_ticks=(),
    )


def _told(trial: TrialRecord, rung: Rung) -> str:
    rate = "no valid BD-rate" if rung.bd_rate_pct is None else f"BD-rate {rung.bd_rate_pct:+.2f} %, estimated"
    text = (
        f"{trial.trial_id}\n{rung.images_seen:,} images: 100 ln J ratio {100 * rung.log_lagrangian_ratio:+.2f}\n{rate}"
    )
    decision = rung.decision
    if decision is None:
        return text
    return f"{text}\nplace {decision.place} of {decision.reported}, {decision.places} go on: {WENT[decision.action]}"


def _stopped_at(trial: TrialRecord) -> int | None:
    return trial.rungs[-1].images_seen if trial.status == "stopped" else None


def _scaled(column: Sequence[float | str | None]) -> list[float | None]:
    """Each value's height between the least (0) and the most (1); names are evenly spread, wide ranges logarithmic."""
    order = _order(column)
    if all(isinstance(value, int | float) for value in order):
        low, high = float(order[0]), float(order[-1])
        scale = math.log if low > 0 and high / low > WIDE else float
        span = scale(high) - scale(low) or 1.0
        return [None if value is None else (scale(float(value)) - scale(low)) / span for value in column]
    last = max(1, len(order) - 1)
    return [None if value is None else order.index(value) / last for value in column]


def _order(column: Sequence[float | str | None]) -> list[float | str]:
    values = {value for value in column if value is not None}
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values, key=(lambda value: (float(value), "")) if numbers else (lambda value: (0.0, str(value))))


def _ends(column: Sequence[float | str | None]) -> tuple[str, str]:
    order = _order(column)
    return _short(order[0]), _short(order[-1])


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
