"""Where a sweep's time went, and its bytes: what account.json holds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.trials.record import TrialRecord


class Account:
    """Filled in by the driver as it goes.

    Attributes:
        seconds: of each phase so far.
        gangs: side by side in the phase `trials`.
        features_stored: bytes that this start published.
        continued: an earlier start did part of the work, so a forecast of all of it does not compare.
    """

    def __init__(self) -> None:
        self._began = time.time()
        self.seconds: dict[str, float] = {}
        self.gangs = 1
        self.features_stored = 0
        self.continued = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.time() - began

    def to_json(self, trials: Sequence[TrialRecord], *, finished: bool) -> dict[str, Any]:
        """Phases of the driver; what the gangs did in the phase `trials`, summed over the rungs of this start: what is
        left of their time there is idle_s, waiting for Tune, a decision or the other gangs; and bytes."""
        rungs = [rung for trial in trials for rung in trial.rungs if rung.ended_at >= self._began]
        turnarounds = sorted(rung.turnaround_s for rung in rungs if rung.turnaround_s is not None)
        gangs = {
            "training_s": math.fsum(rung.training_s - rung.data_wait_s for rung in rungs),
            "data_wait_s": math.fsum(rung.data_wait_s for rung in rungs),
            "validation_s": math.fsum(rung.validation_s for rung in rungs),
            "startup_s": math.fsum(rung.startup_s + rung.build_s for rung in rungs),
            "checkpoints_s": math.fsum(rung.saving_s for rung in rungs),
        }
        idle_s = self.gangs * self.seconds.get("trials", 0.0) - sum(gangs.values())
        last = [trial.rungs[-1] for trial in trials if trial.rungs]
        return {
            "finished": finished,
            "continued": self.continued,
            "wall_s": time.time() - self._began,
            "phases_s": self.seconds,
            "gangs": gangs | {"idle_s": idle_s},
            "images": sum(_trained(trial, self._began) for trial in trials),
            "bytes": {
                "features_stored": self.features_stored,
                "weights": sum(rung.bytes.weights for rung in last),
                "checkpoints": sum(rung.bytes.checkpoint for rung in rungs),
                "features_read": sum(rung.bytes.read for rung in rungs),
            },
            "turnaround_median_s": turnarounds[len(turnarounds) // 2] if turnarounds else None,
            "turnaround_max_s": turnarounds[-1] if turnarounds else None,
        }


def _trained(trial: TrialRecord, since: float) -> int:
    """Images of the segments that ended after a moment, in seconds since the epoch."""
    starts = (0, *(rung.images_seen for rung in trial.rungs))
    segments = zip(starts, trial.rungs, strict=False)
    return sum(rung.images_seen - start for start, rung in segments if rung.ended_at >= since)
