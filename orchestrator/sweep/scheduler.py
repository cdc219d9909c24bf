"""The early-stopping rule as a Tune scheduler. Tune never saves a scheduler's state: this one saves its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.store import Store
from orchestrator.sweep import records
from orchestrator.sweep.rungs import Decision, StratifiedASHA

RUNGS = "rungs.json"
Announce = Callable[[dict[str, Any], dict[str, Any], Decision], None]  # the trial's record, its rung, the decision


class RungScheduler(FIFOScheduler):
    """Asks the rule at every rung.

    A decision is in the run folder, in rungs.json and then in the trial's file, before it takes effect.
    """

    def __init__(self, rule: StratifiedASHA, run: Store, token: str, announce: Announce) -> None:
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


def decide(rule: StratifiedASHA, run: Store, token: str, trial_id: str, images: int, announce: Announce) -> Decision:
    """Ask the rule about a rung that is in the trial's file, and record what it says.

    Raises:
        NotOwner: another process runs this sweep by now.
    """
    records.check_owner(run, token)
    record = records.read_trial(run, trial_id)
    if record is None:
        raise FileNotFoundError(f"{run.url}/{records.trial_file(trial_id)} is gone")
    rung = next(rung for rung in record["rungs"] if rung["images_seen"] == images)
    decision = rule.decide(records.report(record, rung))
    records.write_json(run, RUNGS, rule.state())
    records.decided(run, trial_id, decision)
    announce(record, rung, decision)
    return decision


def restore(rule: StratifiedASHA, run: Store, token: str, trial_ids: list[str], announce: Announce) -> None:
    """Bring the rule to where the run folder is: forget reports whose work is lost, make those that were cut off."""
    found = {trial_id: records.read_trial(run, trial_id) for trial_id in trial_ids}
    state = records.read_json(run, RUNGS)
    if state is not None:
        rule.restore(state, {trial_id: records.images_seen(record) for trial_id, record in found.items()})
    known = {(report.trial_id, report.images_seen): decision for report, decision in rule.decisions()}
    missing = []
    for trial_id, record in found.items():
        for rung in record["rungs"] if record else ():
            decision = known.get((trial_id, rung["images_seen"]))
            if decision is None:
                missing.append((rung["ended_at"], trial_id, rung["images_seen"]))
            elif "decision" not in rung:
                records.decided(run, trial_id, decision)
    for _, trial_id, images in sorted(missing):
        decide(rule, run, token, trial_id, images, announce)
