"""The early-stopping rule as a Tune scheduler. Tune does not save its state: the trials' files are its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.gang.sweep import StepResult
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial, trial_file
from orchestrator.trials.record import Decision, Rung, TrialRecord

Announce = Callable[[TrialRecord, Rung, Decision], None]


class RungScheduler(FIFOScheduler):
    """Asks the rule at every rung. A decision is in the trial's file before it takes effect."""

    def __init__(self, rule: RungRule, run: Store, token: str, announce: Announce) -> None:
        """
        Args:
            rule: decides.
            run: the run folder.
            token: of this process.
            announce: is told each decision.
        """
        super().__init__()
        self._rule, self._run, self._token, self._announce = rule, run, token, announce

    @property
    def supports_buffered_results(self) -> bool:
        """Tune asks whether it may report several results at once."""
        return False  # each result must be decided on before the next segment starts

    def on_trial_result(self, tune_controller: Any, trial: Any, result: StepResult) -> str:
        """CONTINUE or STOP, for the rung that a result is of. Raises as `decide`."""
        trial_id, images = result["sweep_trial_id"], result["images_seen"]
        decision = decide(self._rule, self._run, self._token, trial_id, images, self._announce)
        verdict: str = self.CONTINUE if decision.action == "continue" else self.STOP
        return verdict


def decide(rule: RungRule, run: Store, token: str, trial_id: str, images: int, announce: Announce) -> Decision:
    """Ask the rule about a rung in the trial's file, and write its decision there.

    Args:
        rule: decides.
        run: the run folder.
        token: of this process.
        trial_id: of the trial.
        images: seen at the rung.
        announce: is told the decision.

    Raises:
        NotOwner: another process runs this sweep now.
        FileNotFoundError: the trial's file is gone.
    """
    record = read_trial(run, trial_id)
    if record is None:
        raise FileNotFoundError(f"{run.url}/{trial_file(trial_id)} is gone")
    return _decide(rule, run, token, record, images, announce)[1]


def _decide(
    rule: RungRule, run: Store, token: str, record: TrialRecord, images: int, announce: Announce
) -> tuple[TrialRecord, Decision]:
    """The record with the decision, and the decision."""
    rung = next(rung for rung in record.rungs if rung.images_seen == images)
    decision = rule.decide(records.report(record, rung))
    record = records.write_decision(run, record.trial_id, token, decision)
    announce(record, rung, decision)
    return record, decision


def restore(
    rule: RungRule, run: Store, token: str, before: Sequence[TrialRecord], announce: Announce
) -> list[TrialRecord]:
    """Restore the rule's state from the trials' records, and decide on reports that a crash left undecided.

    These are taken by images seen, then by trial id. The order in which they came is not known, since the clocks of
    nodes differ; a fixed order makes every restore decide alike.

    Args:
        rule: with no reports yet.
        run: the run folder.
        token: of this process.
        before: the records in the trials' files.
        announce: is told each new decision.

    Returns:
        The records as they are in the files now, with the new decisions.

    Raises:
        NotOwner: as `decide`.
    """
    rule.restore(entry for record in before for entry in records.decisions(record))
    current = {record.trial_id: record for record in before}
    undecided = [
        (rung.images_seen, record.trial_id)
        for record in before
        for rung in record.rungs
        if rung.decision is None and rung.images_seen <= record.images_seen
    ]
    for images, trial_id in sorted(undecided):
        current[trial_id], _ = _decide(rule, run, token, current[trial_id], images, announce)
    return [current[record.trial_id] for record in before]
