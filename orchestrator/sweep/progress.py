"""The progress of a running sweep: one line per event."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import RayActorError

from orchestrator.logs import say, warn
from orchestrator.sweep.gang.gang import RankLost
from orchestrator.sweep.gang.sweep import Sweep
from orchestrator.sweep.run_folder import records
from orchestrator.trials.record import Decision, Rung, TrialRecord


class Progress(tune.Callback):
    """Counts ended trials, and prints each rung and each failure."""

    def __init__(
        self,
        sweep: Sweep,
        ended: int,
        width: int,
        log: Callable[[TrialRecord], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            sweep: the sweep.
            ended: how many trials have ended before.
            width: of the longest trial's id, in characters.
            log: is given each trial's record at a rung, and must return at once.
            changed: called after each event, when the run folder has it.
        """
        self._log = log
        self._run, self._token, self._total = sweep.run, sweep.token, sweep.spec.trials
        self._ended, self._width, self._changed = ended, width, changed

    def rung(self, record: TrialRecord, rung: Rung, decision: Decision) -> None:
        """Print a rung and the decision there."""
        self._log(record)
        self._ended += decision.action in ("stop", "end")
        if rung.bd_rate_pct is not None:
            value = f"BD-rate {rung.bd_rate_pct:+7.2f} %"
        else:
            reason = (rung.bd_rate_reason or "").partition(":")[0]
            value = f"no BD-rate ({reason}), ln J ratio {rung.log_lagrangian_ratio:+.3f}"
        for damage in rung.mended:
            self._line(record.trial_id, f"{damage}; made anew", warn)
        self._line(record.trial_id, f"{rung.images_seen:6} images  {value}  {decision.action}")

    def waited(self, trial_id: str, decision: Decision) -> None:
        """Print what becomes of a trial that was paused."""
        self._ended += decision.action == "stop"
        self._line(trial_id, f"{decision.rung:6} images  paused until now: {decision.action}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune. Raises NotOwner if another process runs this sweep now."""
        trial_id = trial.config["trial_id"]
        file = Path(trial.error_file or "")
        error = file.read_text(encoding="utf-8") if file.is_file() else "Tune gives no reason"
        records.mark_failed(self._run, trial_id, self._token, error, lost=_lost(trial))
        self._line(trial_id, f"failed: {error.strip().splitlines()[-1]}", warn)

    def _line(self, trial_id: str, text: str, tell: Callable[[str], None] = say) -> None:
        tell(f"[{self._ended:2}/{self._total}] {trial_id:{self._width}} {text}")
        self._changed()


def _lost(trial: Any) -> bool:
    """Whether the trial's own process died, or its ranks died too often."""
    file = Path(trial.pickled_error_file or "")
    if not file.is_file():
        return False
    # Tune wrote the file a moment ago; Tune's own reader would look for it in its later place
    error = cloudpickle.loads(file.read_bytes())
    cause = getattr(error, "cause", None)
    return isinstance(error, RayActorError) or (isinstance(cause, RankLost) and not cause.hung)
