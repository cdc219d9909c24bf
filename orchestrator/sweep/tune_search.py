"""The search as a Tune searcher. Tune does not save its state: the trials' files are its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray.tune.search import Searcher

from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.given import GivenTrials
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.gang.sweep import TrialConfig
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial


class TuneSearch(Searcher):
    """Gives Tune the trials that were begun before, then new ones from the search.

    A trial's file is in the run folder before Tune gets the trial, so that a restored search gives the same trial.
    """

    def __init__(
        self,
        search: Search | GivenTrials,
        begun: Sequence[Trial],
        run: Store,
        token: str,
        complexity: Mapping[str, Complexity],
    ) -> None:
        """
        Args:
            search: gives new trials.
            begun: trials from `Search.resume`, which come first.
            run: the run folder.
            token: of this process.
            complexity: by complexity class.
        """
        super().__init__()
        self._search, self._begun, self._run, self._token = search, list(begun), run, token
        self._complexity = complexity
        self._trial_ids: dict[str, str] = {}  # Tune's id -> ours

    def suggest(self, trial_id: str) -> TrialConfig | str:
        """The config of the next trial, or FINISHED; `trial_id` is Tune's.

        Raises NotOwner if another process runs this sweep now.
        """
        trial = self._begun.pop(0) if self._begun else self._search.ask()
        if trial is None:
            finished: str = self.FINISHED
            return finished
        records.begin(self._run, trial, self._complexity[trial.complexity_class], self._token)
        self._trial_ids[trial_id] = trial.trial_id
        return TrialConfig(trial_id=trial.trial_id)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False) -> None:
        """Pass an ended trial's record to the search; `trial_id` is Tune's."""
        ended = self._trial_ids.pop(trial_id)
        record = read_trial(self._run, ended)
        if record is not None:
            self._search.tell(ended, record)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing, but Tune would warn if it were missing."""
