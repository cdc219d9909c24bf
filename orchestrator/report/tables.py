"""The report's tables as HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.report.costs import COSTS, cost_of
from orchestrator.report.html import Link, Long, html_table
from orchestrator.report.run_files import RunFiles
from orchestrator.results.account import Account, Forecasts

MOST_OF_A_REASON = 160  # characters


def front_table(run: RunFiles) -> str:
    """The front, cheapest by its first cost first."""
    others = [axis for axis in run.axes if axis not in ("macs_per_pixel", "params")]
    rows = [
        [
            _linked(run, student.trial_id),
            student.teacher or "control",
            f"{student.macs_per_pixel / 1000:.2f}",
            f"{student.params:,}",
            *(_cost(cost_of(student, axis)) for axis in others),
            _signed(student.bd_rate_pct),
            _signed(student.estimated_bd_rate_pct),
            f"{student.images_seen:,}",
            student.version or "",
        ]
        for student in sorted(run.front, key=lambda student: cost_of(student, run.axes[0]) or 0.0)
    ]
    costs = ["kMACs/pixel", "parameters", *(COSTS[axis].label for axis in others)]
    return html_table(
        ["trial", "teacher", *costs, "BD-rate %", "estimated %", "images seen", "version"],
        rows,
        left=2,
        what="the front",
    )


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
        invalid = (coded and coded.bd_rate_reason) or (last and last.bd_rate_reason) or ""
        reason = (trial.error or "").strip().splitlines()[-1:] or [invalid]
        loss = trial.model_dump(mode="json", include={"loss"})["loss"]
        rows.append(
            [
                _linked(run, trial.trial_id),
                trial.teacher or "control",
                Long(loss_in_words(loss)),
                trial.status,
                f"{trial.images_seen:,}",
                _signed(last.bd_rate_pct if last else None),
                _signed(coded.bd_rate_pct if coded else None),
                _signed(last.log_lagrangian_ratio if last else None, 3),
                f"{trial.macs_per_pixel / 1000:.2f}",
                f"{trial.params:,}",
                Long(reason[0][:MOST_OF_A_REASON]),
            ]
        )
        classes.append("front" if trial.trial_id in on_front else "failed" if trial.broken else trial.status)
    head = ["trial", "teacher", "loss", "status", "images seen", "BD-rate %, estimated", "coded", "ln J ratio"]
    return html_table([*head, "kMACs/pixel", "parameters", "note"], rows, left=4, what="all trials", classes=classes)


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
    return html_table(head, rows, left=1, what=f"{what}: {unit}")


def _linked(run: RunFiles, trial_id: str) -> Link:
    """To the trial's run in MLflow."""
    return Link(trial_id, run.mlflow.page_of(trial_id) if run.mlflow is not None else None)


def _cost(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
