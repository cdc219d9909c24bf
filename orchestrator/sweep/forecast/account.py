"""The account of a sweep's time and bytes, account.json."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.results.account import Account, ByteCounts, GangSeconds
from orchestrator.trials.record import TrialRecord


class PhaseTimes:
    """Measures the driver's phases with its monotonic clock.

    Attributes:
        seconds: phase -> seconds so far.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the context to a phase; a phase may have several contexts."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    @contextmanager
    def side_by_side(self, *names: str) -> Iterator[dict[str, float]]:
        """Share the time of the context out to phases whose tasks run side by side.

        The context adds up the seconds of each phase's tasks in what it is given; the time is shared in that
        proportion. Without any task the first phase has it all.
        """
        began, tasks = time.monotonic(), dict.fromkeys(names, 0.0)
        try:
            yield tasks
        finally:
            elapsed, total = time.monotonic() - began, sum(tasks.values())
            shares = {name: seconds / total for name, seconds in tasks.items()} if total else {names[0]: 1.0}
            for name in names:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed * shares.get(name, 0.0)

    @property
    def wall_s(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._began


def reported(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """Trial id -> how many rungs it has reported."""
    return {record.trial_id: len(record.rungs) for record in trials}


def account_of(
    times: PhaseTimes,
    trials: Sequence[TrialRecord],
    *,
    before: Mapping[str, int],
    gangs: int,
    features_stored: int,
    continued: bool,
    finished: bool,
) -> Account:
    """The account of one start of a sweep.

    The rungs of this start are those beyond `before`: clocks of different machines are not compared.

    Args:
        times: of the driver's phases.
        trials: their records now.
        before: `reported`, when this start began.
        gangs: that train at the same time in the phase `trials`.
        features_stored: bytes that this start published.
        continued: an earlier start did part of the work.
        finished: nothing is left to do.
    """
    rungs = [rung for record in trials for rung in record.rungs[before.get(record.trial_id, 0) :]]
    turnarounds = sorted(rung.turnaround_s for rung in rungs if rung.turnaround_s is not None)
    last = [record.rungs[-1] for record in trials if record.rungs]

    work = {
        "training_s": math.fsum(rung.training_s - rung.data_wait_s for rung in rungs),
        "data_wait_s": math.fsum(rung.data_wait_s for rung in rungs),
        "validation_s": math.fsum(rung.validation_s for rung in rungs),
        "startup_s": math.fsum(rung.startup_s + rung.build_s for rung in rungs),
        "checkpoints_s": math.fsum(rung.saving_s for rung in rungs),
    }
    return Account(
        finished=finished,
        continued=continued,
        wall_s=times.wall_s,
        phases_s=times.seconds,
        gangs=GangSeconds(**work, idle_s=gangs * times.seconds.get("trials", 0.0) - sum(work.values())),
        images=sum(_trained(record, before.get(record.trial_id, 0)) for record in trials),
        bytes=ByteCounts(
            features_stored=features_stored,
            weights=sum(rung.bytes.weights for rung in last),
            checkpoints=sum(rung.bytes.checkpoint for rung in rungs),
            features_read=sum(rung.bytes.read for rung in rungs),
        ),
        turnaround_median_s=turnarounds[len(turnarounds) // 2] if turnarounds else None,
        turnaround_max_s=turnarounds[-1] if turnarounds else None,
    )


def _trained(record: TrialRecord, before: int) -> int:
    """Images trained on after the first `before` rungs."""
    seen = [0, *(rung.images_seen for rung in record.rungs)]
    return seen[-1] - seen[min(before, len(seen) - 1)]
