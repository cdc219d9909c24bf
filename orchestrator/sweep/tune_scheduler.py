"""The early-stopping rule as a Tune scheduler. Tune never saves a scheduler's state: this one saves its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial, trial_file
from orchestrator.trials.record import Decision, Rung, TrialRecord

Announce = Callable[[TrialRecord, Rung, Decision], None]


class RungScheduler(FIFOScheduler):
    """Asks the rule at every rung.

    A decision is in the trial's file before it takes effect.
    """

    def __init__(self, rule: RungRule, run: Store, token: str, announce: Announce) -> None:
        super().__init__()
        self._rule, self._run, self._token, self._announce = rule, run, token, announce

    @property
    def supports_buffered_results(self) -> bool:
        return False  # each result must be decided on before the next segment starts

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        where = (self._rule, self._run, self._token)
        decision = decide(*where, result["sweep_trial_id"], result["images_seen"], self._announce)
        verdict: str = self.CONTINUE if decision.action == "continue" else self.STOP
        return verdict


def decide(rule: RungRule, run: Store, token: str, trial_id: str, images: int, announce: Announce) -> Decision:
    """Ask the rule about a rung that is in the trial's file, and record what it says.

    Raises:
        NotOwner: another process runs this sweep by now.
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
    record = records.decided(run, record.trial_id, token, decision)
    announce(record, rung, decision)
    return record, decision


def restore(
    rule: RungRule, run: Store, token: str, before: Sequence[TrialRecord], announce: Announce
) -> list[TrialRecord]:
    """Bring the rule to where the trials' records are, and decide on the reports that a crash left undecided.

    These are taken by images seen, then by trial id: which of them came first nobody knows, since nodes have clocks of
    their own, and so every restore decides alike.

    Args:
        before: as the trials' files are.

    Returns:
        The records with the decisions that were made, as the files are then.

    Raises:
        NotOwner: as `decide`.
    """
    rule.restore(entry for record in before for entry in records.decisions(record))
    now = {record.trial_id: record for record in before}
    undecided = [
        (rung.images_seen, record.trial_id)
        for record in before
        for rung in record.rungs
        if rung.decision is None and rung.images_seen <= record.images_seen
    ]
    for images, trial_id in sorted(undecided):
        now[trial_id], _ = _decide(rule, run, token, now[trial_id], images, announce)
    return [now[record.trial_id] for record in before]
