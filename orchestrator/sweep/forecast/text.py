"""The text that `--plan` prints (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.spec.messages import columns, counted
from orchestrator.sweep.forecast.calibration import Calibration, GangLayout
from orchestrator.sweep.forecast.forecast import CASES, PairWork, Work, forecast


def advice(layouts: Sequence[GangLayout], ranks: int, gangs: int) -> str:
    """One line: which of the compared layouts trains the most images a second.

    Args:
        layouts: that were compared.
        ranks, gangs: of the specification.
    """
    if not layouts:
        return "ranks per trial: nothing to compare on these resources"
    ordered = sorted(layouts, key=lambda layout: layout.seconds)
    best, other = ordered[0], ordered[-1]
    lead = 100 * (other.seconds / best.seconds - 1)
    line = f"ranks per trial: {_words(best)} train {lead:.0f} % more images a second than {_words(other)}"
    if lead < 5:
        return f"{line}; that is no difference"
    if (best.ranks, best.gangs) == (ranks, gangs):
        return f"{line}, as the specification has it"
    return f"{line}: training.ranks_per_trial={best.ranks} concurrent_trials={best.gangs} would be faster"


def _words(layout: GangLayout) -> str:
    trials = "1 trial" if layout.gangs == 1 else f"{layout.gangs} trials side by side"
    return f"{trials} of {layout.ranks} rank{'s' if layout.ranks > 1 else ''}"


def lines(work: Work, measured: Calibration) -> list[str]:
    """The lines that `--plan` prints.

    Args:
        work: of the sweep.
        measured: what its parts cost.
    """
    cases = [forecast(work, measured, case) for case in CASES]
    unit = "GPU" if work.gpus else "CPU"
    rows = [
        ("", "at least", "expected", "at most"),
        ("images trained on", *(f"{case.images:,.0f}" for case in cases)),
        ("trial-hours", *(f"{case.trial_hours:.3g}" for case in cases)),
        (f"teacher-hours of one {unit}", *(f"{case.teacher_hours:.3g}" for case in cases)),
        *(
            (f"MB, {name.replace('_', ' ')}", *(f"{getattr(case.bytes, name) / 1e6:,.1f}" for case in cases))
            for name in ("features_stored", "features_read", "checkpoints", "weights")
        ),
        ("requests to store and run folder", *(f"{case.requests:,.0f}" for case in cases)),
        *((f"seconds, {name}", *(f"{case.phases_s[name]:,.1f}" for case in cases)) for name in cases[0].phases_s),
        ("wall time", *(span(case.wall_s) for case in cases)),
    ]
    rungs = ", ".join(f"{rung:,}" for rung in work.rungs)
    ranks = counted(work.ranks, "rank")
    where = f"{work.gangs} at a time, {ranks} each, on {work.cpus} CPUs and {work.gpus} GPUs"
    return [
        f"{work.trials} trials, {where}; rungs at {rungs} images",
        *([] if work.pairs is None else [_pairs(work.pairs)]),
        *([] if work.decoding is None else [work.decoding.line(measured.fills)]),
        *columns(rows, right=range(1, 4)),
        advice(measured.layouts, work.ranks, work.gangs),
    ]


def _pairs(pairs: PairWork) -> str:
    scored = f"at most {counted(pairs.scored, 'pair')} scored"
    return f"{scored}, {pairs.joined} of them trained on, {pairs.images:,} images each"


def lack_of_space(work: Work, measured: Calibration, store: str, free: int | None) -> str | None:
    """The line for a store whose disk has less free than the sweep will publish; None: it fits.

    Args:
        work: of the sweep.
        measured: what its parts cost.
        store: the feature store, for the line.
        free: bytes that its disk has left; None: it is on S3.
    """
    needed = forecast(work, measured, "expected").bytes.features_stored
    if free is None or needed <= free:
        return None
    return f"store: {store} has {free / 1e6:,.1f} MB free, and the sweep publishes {needed / 1e6:,.1f} MB there"


def span(seconds: float) -> str:
    """A time in a fitting unit, such as `3.2 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
