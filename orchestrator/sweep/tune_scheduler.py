"""The early-stopping rule as a Tune scheduler. Tune never saves a scheduler's state: this one saves its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import Decision, RungRule
from orchestrator.sweep.run_folder import records

Announce = Callable[[dict[str, Any], dict[str, Any], Decision], None]  # the trial's record, its rung, the decision


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
    records.check_owner(run, token)
    record = records.read_trial(run, trial_id)
    if record is None:
        raise FileNotFoundError(f"{run.url}/{records.trial_file(trial_id)} is gone")
    return _decide(rule, run, record, images, announce)


def _decide(rule: RungRule, run: Store, record: records.Record, images: int, announce: Announce) -> Decision:
    rung = next(rung for rung in record["rungs"] if rung["images_seen"] == images)
    decision = rule.decide(records.report(record, rung))
    records.decided(run, record, decision)
    announce(record, rung, decision)
    return decision


def restore(rule: RungRule, run: Store, token: str, found: Sequence[records.Record], announce: Announce) -> None:
    """Bring the rule to where the trials' records are, and decide on the reports that a crash left undecided.

    These are taken by images seen, then by trial id: which of them came first nobody knows, since nodes have clocks of
    their own, and so every restore decides alike.

    Args:
        found: as the trials' files are; a decision that is made goes into both.

    Raises:
        NotOwner: as `decide`.
    """
    rule.restore(entry for record in found for entry in records.decisions(record))
    undecided = [
        (rung["images_seen"], record["trial_id"], record)
        for record in found
        for rung in record["rungs"]
        if "decision" not in rung and rung["images_seen"] <= records.images_seen(record)
    ]
    for images, _, record in sorted(undecided, key=lambda report: report[:2]):
        records.check_owner(run, token)
        _decide(rule, run, record, images, announce)
