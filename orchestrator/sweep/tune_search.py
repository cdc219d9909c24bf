"""The search as a Tune searcher. Tune does not save its state: the trials' files are its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ray.tune.search import Searcher

from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.given import GivenTrials
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.gang.sweep import TrialConfig
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial
from orchestrator.trials.record import Decision

Announce = Callable[[str, Decision], None]


class TuneSearch(Searcher):
    """Gives Tune the trials that were begun before, then new ones from the search.

    A trial's file is in the run folder before Tune gets the trial, so that a restored search gives the same trial.
    """

    def __init__(
        self,
        search: Search | GivenTrials,
        rule: RungRule,
        begun: Sequence[Trial],
        run: Store,
        token: str,
        complexity: Mapping[str, Complexity],
        announce: Announce = lambda trial_id, decision: None,
    ) -> None:
        """
        Args:
            search: gives new trials.
            rule: says which paused trial goes on; restored.
            begun: trials from `Search.resume`, which come first.
            run: the run folder.
            token: of this process.
            complexity: by complexity class.
            announce: is told what becomes of each trial that was paused.
        """
        super().__init__()
        self._search, self._rule, self._begun, self._run, self._token = search, rule, list(begun), run, token
        self._complexity, self._announce = complexity, announce
        self._trial_ids: dict[str, str] = {}  # Tune's id -> ours

    def suggest(self, trial_id: str) -> TrialConfig | str | None:
        """The config of the next trial; None: there may be one once a running trial has reported; or FINISHED.

        Trials that were begun come first, then one that was paused and is promoted, then a new one.

        Args:
            trial_id: Tune's.

        Raises NotOwner if another process runs this sweep now.
        """
        trial = self._begun.pop(0) if self._begun else self._promoted() or self._search.ask()
        trial = trial or self._promoted(last=True)
        if trial is None and self._rule.pauses and self._trial_ids:
            return None
        if trial is None:
            for stopped, decision in self._rule.stop_paused():
                self._decided(stopped, decision)
            finished: str = self.FINISHED
            return finished
        records.begin(self._run, trial, self._complexity[trial.complexity_class], self._token)
        self._trial_ids[trial_id] = trial.trial_id
        return TrialConfig(trial_id=trial.trial_id)

    def _promoted(self, *, last: bool = False) -> Trial | None:
        """The paused trial that goes on now; that it does is in its file. `last`: see `RungRule.promote`."""
        promoted = self._rule.promote(last=last)
        return None if promoted is None else self._decided(*promoted)

    def _decided(self, trial_id: str, decision: Decision) -> Trial:
        """Write what becomes of a paused trial."""
        record = records.write_decision(self._run, trial_id, self._token, decision)
        self._announce(trial_id, decision)
        return record.trial

    def on_trial_complete(self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False) -> None:
        """Pass an ended trial's record to the search; `trial_id` is Tune's."""
        ended = self._trial_ids.pop(trial_id)
        record = read_trial(self._run, ended)
        if record is not None:
            self._search.tell(ended, record)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing, but Tune would warn if it were missing."""
