"""What `--plan` prints (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.spec.messages import columns
from orchestrator.sweep.forecast.forecast import CASES, Calibration, Pace, Work, forecast


def advice(paces: Sequence[Pace], ranks: int, gangs: int) -> str:
    """Which of the compared ways of using the same resources trains the most."""
    if not paces:
        return "ranks per trial: nothing to compare on these resources"
    ordered = sorted(paces, key=lambda pace: pace.seconds)
    best, other = ordered[0], ordered[-1]
    lead = 100 * (other.seconds / best.seconds - 1)
    line = f"ranks per trial: {_words(best)} train {lead:.0f} % more images a second than {_words(other)}"
    if lead < 5:
        return f"{line}; that is no difference"
    if (best.ranks, best.gangs) == (ranks, gangs):
        return f"{line}, as the specification has it"
    return f"{line}: training.ranks_per_trial={best.ranks} concurrent_trials={best.gangs} would be faster"


def _words(pace: Pace) -> str:
    trials = "1 trial" if pace.gangs == 1 else f"{pace.gangs} trials side by side"
    return f"{trials} of {pace.ranks} rank{'s' if pace.ranks > 1 else ''}"


def lines(work: Work, measured: Calibration) -> list[str]:
    """What `--plan` prints."""
    cases = [forecast(work, measured, case) for case in CASES]
    unit = "GPU" if work.gpus else "CPU"
    rows = [
        ("", "at least", "expected", "at most"),
        ("images trained on", *(f"{each.images:,.0f}" for each in cases)),
        ("trial-hours", *(f"{each.trial_hours:.3g}" for each in cases)),
        (f"teacher-hours of one {unit}", *(f"{each.teacher_hours:.3g}" for each in cases)),
        *(
            (f"MB, {name.replace('_', ' ')}", *(f"{each.bytes[name] / 1e6:,.1f}" for each in cases))
            for name in ("features_stored", "features_read", "checkpoints", "weights")
        ),
        ("requests to store and run folder", *(f"{each.requests:,.0f}" for each in cases)),
        *((f"seconds, {name}", *(f"{each.phases_s[name]:,.1f}" for each in cases)) for name in cases[0].phases_s),
        ("wall time", *(span(each.wall_s) for each in cases)),
    ]
    rungs = ", ".join(f"{rung:,}" for rung in work.rungs)
    where = f"{work.gangs} at a time, {work.ranks} ranks each, on {work.cpus} CPUs and {work.gpus} GPUs"
    return [
        f"{work.trials} trials, {where}; rungs at {rungs} images",
        *columns(rows, right=range(1, 4)),
        advice(measured.paces, work.ranks, work.gangs),
    ]


def span(seconds: float) -> str:
    """Such as `3.2 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
