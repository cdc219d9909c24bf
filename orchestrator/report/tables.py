"""The report's tables as HTML."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.report.run_files import RunFiles
from orchestrator.results.account import Account, Forecasts
from orchestrator.trials.record import Rung, TrialRecord


def front_table(run: RunFiles) -> str:
    """The front, cheapest first."""
    rows = [
        [
            student.trial_id,
            student.teacher or "control",
            f"{student.macs_per_pixel / 1000:.2f}",
            f"{student.params:,}",
            _signed(student.bd_rate_pct),
            _signed(student.estimated_bd_rate_pct),
            f"{student.images_seen:,}",
            student.version or "",
        ]
        for student in sorted(run.front, key=lambda student: student.macs_per_pixel)
    ]
    return _table(
        ["trial", "teacher", "kMACs/pixel", "parameters", "BD-rate %", "estimated %", "images seen", "version"],
        rows,
        left=2,
    )


def distillation_table(run: RunFiles) -> str:
    """Each student's control against the distilled trials of the same start, at the rungs that both reached."""
    rows = []
    for student, trials in _by_start(run.trials).items():
        for images in sorted({rung.images_seen for trial in trials for rung in trial.rungs}):
            reached = [(trial, rung) for trial in trials for rung in trial.rungs if rung.images_seen == images]
            values, valid = _comparable([rung for _, rung in reached])
            measured = [(value, trial) for value, (trial, _) in zip(values, reached, strict=True)]
            control = [value for value, trial in measured if trial.teacher is None]
            distilled = sorted((value, trial.trial_id) for value, trial in measured if trial.teacher is not None)
            if not control or not distilled:
                continue
            best, median = distilled[0][0], statistics.median(value for value, _ in distilled)
            rows.append(
                [
                    student,
                    f"{images:,}",
                    "BD-rate %" if valid else "100 ln J ratio",
                    f"{min(control):+.2f}",
                    len(distilled),
                    f"{best:+.2f}",
                    _Judged(best - min(control)),
                    _Judged(median - min(control)),
                    distilled[0][1],
                ]
            )
    if not rows:
        return '<p class="quiet">No rung was reached both by a control and by a trial with distillation.</p>'
    head = ["student", "images seen", "measure", "control", "distilled trials", "best of them"]
    return _table([*head, "best - control", "median - control", "best trial"], rows, left=1)


def _by_start(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """The trials that differ in their distillation alone, by the student; with its start where it has several."""
    starts: dict[str, dict[str, list[TrialRecord]]] = {}
    for trial in trials:
        start = f"slice of {trial.slice_of}" if trial.slice_of else trial.student.init
        starts.setdefault(trial.complexity_class, {}).setdefault(start, []).append(trial)
    return {
        name if len(of_class) == 1 else f"{name}, {start}": same
        for name, of_class in starts.items()
        for start, same in of_class.items()
    }


def _comparable(rungs: Sequence[Rung]) -> tuple[list[float], bool]:
    """BD-rates in percent, and True, if all are valid; else 100 times the log Lagrangian ratios."""
    rates = [rung.bd_rate_pct for rung in rungs if rung.bd_rate_pct is not None]
    if len(rates) == len(rungs):
        return rates, True
    return [100 * rung.log_lagrangian_ratio for rung in rungs], False


def loss_in_words(loss: Mapping[str, object]) -> str:
    """A loss as a specification writes it: a preset's name, weights, and whatever else differs from the defaults."""
    words = [str(value) if name == "preset" else f"{name} {_short(value)}" for name, value in loss.items() if value]
    return ", ".join(words) or "rate-distortion"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def trial_table(run: RunFiles) -> str:
    """All trials."""
    rows, classes = [], []
    on_front = {student.trial_id for student in run.front}
    for trial in run.trials:
        last = trial.rungs[-1] if trial.rungs else None
        coded = run.coded.get(trial.trial_id)
        reason = (trial.error or "").strip().splitlines()[-1:] or [(last and last.bd_rate_reason) or ""]
        loss = trial.model_dump(mode="json", include={"loss"})["loss"]
        rows.append(
            [
                trial.trial_id,
                trial.teacher or "control",
                loss_in_words(loss),
                trial.status,
                f"{trial.images_seen:,}",
                _signed(last.bd_rate_pct if last else None),
                _signed(coded.bd_rate_pct if coded else None),
                _signed(last.log_lagrangian_ratio if last else None, 3),
                f"{trial.macs_per_pixel / 1000:.2f}",
                f"{trial.params:,}",
                reason[0].partition(":")[0][:60],
            ]
        )
        classes.append("front" if trial.trial_id in on_front else "failed" if trial.broken else trial.status)
    head = ["trial", "teacher", "loss", "status", "images seen", "BD-rate %, estimated", "coded", "ln J ratio"]
    return _table([*head, "kMACs/pixel", "parameters", "note"], rows, left=4, classes=classes)


def account_table(account: Account, forecasts: Forecasts | None) -> str:
    """Phases of the driver, what the gangs did, and bytes; with a forecast, next to what it expected.

    The account of a sweep that was continued is of its last start, so it is not compared with a forecast.
    """
    if account.continued:
        forecasts = None
    expected = forecasts.expected if forecasts else None
    text = f"<p>{account.wall_s:.0f} s in all; {account.images:,} images trained on."
    if forecasts:
        bounds = f"between {forecasts.least.images:,.0f} and {forecasts.most.images:,.0f}"
        text += f" Planned: {forecasts.expected.wall_s:.0f} s, and {forecasts.expected.images:,.0f} images, {bounds}."
    if account.turnaround_median_s is not None:
        text += (
            f" From the last step of a trial to the first of the next: median {account.turnaround_median_s:.2f} s, "
            f"at most {account.turnaround_max_s:.2f} s."
        )
    gangs, sizes = account.gangs.model_dump(), account.bytes.model_dump()
    expected_phases = expected.phases_s if expected else None
    expected_gangs, expected_sizes = (
        (expected.gangs.model_dump(), expected.bytes.model_dump()) if expected else (None, None)
    )
    return "".join(
        [
            text + "</p>",
            _against("phase", "seconds", account.phases_s, expected_phases, account.wall_s),
            "<p>Within the trials, summed over the gangs:</p>",
            _against("work", "seconds", gangs, expected_gangs, sum(gangs.values())),
            _against("bytes", "MB", sizes, expected_sizes, 0, scale=1e-6),
        ]
    )


def _against(
    what: str,
    unit: str,
    taken: Mapping[str, float],
    expected: Mapping[str, float] | None,
    whole: float,
    scale: float = 1,
) -> str:
    """A row per entry; `whole` is what shares are computed of, 0: no shares."""
    rows = [
        [
            name.removesuffix("_s").replace("_", " "),
            *([] if expected is None else [f"{scale * expected[name]:.1f}"]),
            f"{scale * value:.1f}",
            *([f"{100 * value / whole:.0f}"] if whole else []),
        ]
        for name, value in taken.items()
    ]
    head = [
        what,
        *([] if expected is None else [f"planned, {unit}"]),
        f"taken, {unit}",
        *(["% of all"] if whole else []),
    ]
    return _table(head, rows, left=1)


def _signed(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:+.{digits}f}"


@dataclass(frozen=True)
class _Judged:
    """A difference that is better below 0, and is coloured so."""

    value: float


def _cell(value: object, tag: str, left: bool) -> str:
    kind, text = (["l"] if left else []), escape(str(value))
    if isinstance(value, _Judged):
        kind.append("better" if value.value < 0 else "worse")
        text = f"{value.value:+.2f}"
    names = f' class="{" ".join(kind)}"' if kind else ""
    return f"<{tag}{names}>{text}</{tag}>"


def _table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int, classes: Sequence[str] | None = None
) -> str:
    """The first `left` columns are aligned left; `classes` are the rows' CSS classes."""
    rows = list(rows)
    names = classes if classes is not None else [""] * len(rows)
    top = "".join(_cell(value, "th", place < left) for place, value in enumerate(head))
    body = "".join(
        f'<tr class="{escape(name)}">'
        + "".join(_cell(value, "td", place < left) for place, value in enumerate(row))
        + "</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
