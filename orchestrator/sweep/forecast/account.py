"""Where a sweep's time went, and its bytes: what account.json holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.sweep.run_folder import records


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

    def to_json(self, found: Sequence[records.Record], *, finished: bool) -> dict[str, Any]:
        """Phases of the driver; what the gangs did in the phase `trials`, summed over the rungs of this start: what is
        left of their time there is idle_s, waiting for Tune, a decision or the other gangs; and bytes."""
        rungs = [rung for record in found for rung in record["rungs"] if rung["ended_at"] >= self._began]
        turnarounds = sorted(rung["turnaround_s"] for rung in rungs if rung["turnaround_s"] is not None)

        def total(name: str) -> float:
            return float(sum(rung[name] for rung in rungs))

        gangs = {
            "training_s": total("training_s") - total("data_wait_s"),
            "data_wait_s": total("data_wait_s"),
            "validation_s": total("validation_s"),
            "startup_s": total("startup_s") + total("build_s"),
            "checkpoints_s": total("saving_s"),
        }
        idle_s = self.gangs * self.seconds.get("trials", 0.0) - sum(gangs.values())
        last = [record["rungs"][-1] for record in found if record["rungs"]]
        return {
            "finished": finished,
            "continued": self.continued,
            "wall_s": time.time() - self._began,
            "phases_s": self.seconds,
            "gangs": gangs | {"idle_s": idle_s},
            "images": sum(_trained(record, self._began) for record in found),
            "bytes": {
                "features_stored": self.features_stored,
                "weights": sum(rung["bytes"]["weights"] for rung in last),
                "checkpoints": sum(rung["bytes"]["checkpoint"] for rung in rungs),
                "features_read": sum(rung["bytes"]["read"] for rung in rungs),
            },
            "turnaround_median_s": turnarounds[len(turnarounds) // 2] if turnarounds else None,
            "turnaround_max_s": turnarounds[-1] if turnarounds else None,
        }


def _trained(record: records.Record, since: float) -> int:
    """Images of the segments that ended after a moment, in seconds since the epoch."""
    rungs = record["rungs"]
    starts = (0, *(rung["images_seen"] for rung in rungs))
    segments = zip(starts, rungs, strict=False)
    return sum(rung["images_seen"] - start for start, rung in segments if rung["ended_at"] >= since)
