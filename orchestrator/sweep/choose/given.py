"""Trials that are known beforehand, given out in their order (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.spec.trial import Trial
from orchestrator.sweep.choose.outcomes import TrialFigures
from orchestrator.trials.record import TrialRecord


class GivenTrials:
    """As `search.Search`, for a list.

    Args:
        trials: in the order in which they are given out.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = list(trials)

    def resume(self, records: Iterable[TrialRecord]) -> list[Trial]:
        """See `Search.resume`."""
        ended = {record.trial_id: record.ended for record in records}
        begun = [trial for trial in self._trials if ended.get(trial.trial_id) is False]
        self._trials = [trial for trial in self._trials if trial.trial_id not in ended]
        return begun

    def ask(self) -> Trial | None:
        """The next trial; None: there are no more."""
        return self._trials.pop(0) if self._trials else None

    def tell(self, trial_id: str, record: TrialFigures) -> None:
        """Does nothing: what comes next does not depend on what was."""
