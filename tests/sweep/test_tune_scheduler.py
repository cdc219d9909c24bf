from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.gang.sweep import StepResult
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.tune_scheduler import RungScheduler, decide, restore
from orchestrator.trials.files import read_trial, read_trials
from orchestrator.trials.record import Checkpoint, Decision, Rung, TrialRecord
from testing.records import record, rung, write

SIZE = Complexity(params=10, macs_per_pixel=2.0, encoder_macs_per_pixel=1.0, decoder_macs_per_pixel=1.0)


def rule() -> RungRule:
    return RungRule(rule="stratified", rungs=(10, 20), reduction=2)


def reach(run: Store, name: str, images: int, bd_rate: float, at: float = 0.0) -> None:
    """What a trial leaves in the run folder when it reaches a rung."""
    before = read_trial(run, name) or record(name)
    path = records.checkpoint_folder(name, images, "token")
    (run / path).replace("state", b"x")
    checkpoint = Checkpoint(images_seen=images, path=path, files={"state": "?"})
    rungs = (*before.rungs, rung(images, bd_rate, ended_at=at))
    write(run, before.changed(images_seen=images, rungs=rungs, checkpoint=checkpoint))


def there(run: Store, name: str) -> TrialRecord:
    trial_record = read_trial(run, name)
    assert trial_record is not None
    return trial_record


def owned(run: Store) -> str:
    records.take_over(run, "token")
    return "token"


def result(name: str, images: int) -> StepResult:
    return StepResult(
        sweep_trial_id=name,
        images_seen=images,
        val_bd_rate_pct=0.0,
        val_bd_rate_reason="",
        val_log_lagrangian_ratio=0.0,
        turnaround_s=-1.0,
    )


def test_a_decision_is_on_disk_before_it_takes_effect(tmp_path: Path) -> None:
    run, told = Store(tmp_path), []

    def announce(trial: TrialRecord, reached: Rung, decision: Decision) -> None:
        assert records.decisions(there(run, trial.trial_id))[-1][1] == decision
        told.append((trial.trial_id, reached.images_seen, decision.action))

    scheduler = RungScheduler(rule(), run, owned(run), announce)
    reach(run, "1-a", 10, 5.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("1-a", 10)) == "CONTINUE"
    assert there(run, "1-a").status == "running" and run.list("checkpoints/1-a")
    reach(run, "2-b", 10, 9.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("2-b", 10)) == "STOP"
    stopped = there(run, "2-b")
    assert (stopped.status, stopped.checkpoint, run.list("checkpoints/2-b")) == ("stopped", None, [])
    assert stopped.rungs[0].decision is not None and stopped.rungs[0].decision.place == 2
    reach(run, "1-a", 20, 4.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("1-a", 20)) == "STOP"
    assert there(run, "1-a").status == "finished"
    assert told == [("1-a", 10, "continue"), ("2-b", 10, "stop"), ("1-a", 20, "end")]


def test_a_report_that_was_cut_off_is_made_on_restore(tmp_path: Path) -> None:
    run, told = Store(tmp_path), []
    scheduler = RungScheduler(rule(), run, owned(run), lambda *_: None)
    reach(run, "1-a", 10, 5.0)
    scheduler.on_trial_result(None, SimpleNamespace(), result("1-a", 10))
    reach(run, "2-b", 10, 9.0)  # killed before the driver heard of it
    restored = rule()
    now = restore(restored, run, "token", read_trials(run), lambda *given: told.append(given[2].action))
    assert told == ["stop"] and there(run, "2-b").ended
    assert now == read_trials(run)  # who goes on with what was read knows of the decision
    assert [report.trial_id for report, _ in restored.decisions()] == ["1-a", "2-b"]


@pytest.mark.parametrize("wrong_by_s", [-3600.0, 0.0, 3600.0])
def test_reports_left_undecided_have_an_order_that_no_clock_changes(tmp_path: Path, wrong_by_s: float) -> None:
    """Their trials ran on nodes whose clocks differ."""
    run, told = Store(tmp_path), []
    owned(run)
    reach(run, "1-a", 10, 9.0, at=1000.0 + wrong_by_s)
    reach(run, "2-b", 10, 5.0, at=1000.0)
    restore(rule(), run, "token", read_trials(run), lambda record, *_: told.append(record.trial_id))
    assert told == ["1-a", "2-b"]


def test_a_restore_reads_the_trials_files_alone_and_their_order(tmp_path: Path) -> None:
    run, made = Store(tmp_path), rule()
    owned(run)
    for name, images, bd_rate in (("2-b", 10, 5.0), ("1-a", 10, 9.0), ("2-b", 20, 4.0), ("3-c", 10, 1.0)):
        reach(run, name, images, bd_rate)
        decide(made, run, "token", name, images, lambda *_: None)
    again = rule()
    restore(again, run, "token", read_trials(run), lambda *_: pytest.fail("nothing new is decided"))
    assert again.decisions() == made.decisions()
    assert [decision.sequence for _, decision in again.decisions()] == [0, 1, 2, 3]
    reach(run, "4-d", 10, 3.0)
    assert decide(again, run, "token", "4-d", 10, lambda *_: None).sequence == 4


def test_a_rung_above_the_saved_work_is_forgotten(tmp_path: Path) -> None:
    run, made = Store(tmp_path), rule()
    owned(run)
    for images in (10, 20):
        reach(run, "1-a", images, 5.0)
        decide(made, run, "token", "1-a", images, lambda *_: None)
    write(run, there(run, "1-a").changed(images_seen=10, status="running"))
    again = rule()
    restore(again, run, "token", read_trials(run), lambda *_: pytest.fail("its work is lost"))
    assert again.decisions() == made.decisions()[:1]


def test_the_trials_of_a_class_are_in_brackets_in_turn(tmp_path: Path) -> None:
    run = Store(tmp_path)
    owned(run)
    made = RungRule(rule="stratified", rungs=(10, 20), reduction=2, brackets=2)
    for name in ("04-d", "02-b", "01-a"):
        reach(run, name, 10, 1.0)
        decide(made, run, "token", name, 10, lambda *_: None)
    assert [decision.bracket for _, decision in made.decisions()] == [0, 1, 0]


def test_only_the_owner_of_a_run_folder_writes(tmp_path: Path) -> None:
    run = Store(tmp_path)
    records.take_over(run, "first")
    records.check_owner(run, "first")
    records.take_over(run, "second")
    with pytest.raises(records.NotOwner, match="taken over"):
        records.check_owner(run, "first")
    reach(run, "1-a", 10, 5.0)
    with pytest.raises(records.NotOwner, match="taken over"):
        RungScheduler(rule(), run, "first", lambda *_: None).on_trial_result(None, None, result("1-a", 10))
    assert there(run, "1-a").rungs[0].decision is None
