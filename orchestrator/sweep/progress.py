"""What a running sweep prints: one line an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.store import Store
from orchestrator.sweep import records
from orchestrator.sweep.rungs import Decision
from orchestrator.sweep.trial import Sweep


def say(line: str) -> None:
    print(line, flush=True)


class Progress(tune.Callback):
    """Counts the trials that have ended, and prints each rung and each failure."""

    def __init__(self, run: Store, total: int, ended: int, width: int) -> None:
        self._run, self._total, self._ended, self._width = run, total, ended, width
        self.sweep: Sweep | None = None  # known when the anchor is

    def rung(self, record: dict[str, Any], rung: dict[str, Any], decision: Decision) -> None:
        self._ended += decision.action != "continue"
        if rung["bd_rate_pct"] is not None:
            value = f"BD-rate {rung['bd_rate_pct']:+7.2f} %"
        else:
            reason = rung["bd_rate_reason"].partition(":")[0]
            value = f"no BD-rate ({reason}), ln J ratio {rung['log_lagrangian_ratio']:+.3f}"
        for finding in rung.get("mended", ()):
            self._line(record["trial_id"], f"{finding}; made anew")
        self._line(record["trial_id"], f"{rung['images_seen']:6} images  {value}  {decision.action}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        assert self.sweep is not None
        records.check_owner(self._run, self.sweep.token)
        trial_id = trial.config["trial_id"]
        file = Path(trial.error_file or "")
        error = file.read_text() if file.is_file() else "Tune gives no reason"
        records.failed(self._run, trial_id, error)
        self._line(trial_id, f"failed: {error.strip().splitlines()[-1]}")

    def _line(self, trial_id: str, text: str) -> None:
        say(f"[{self._ended:2}/{self._total}] {trial_id:{self._width}} {text}")
