from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.distill.phases import Loss
from orchestrator.spec import Student, Trial
from orchestrator.store import Store
from orchestrator.sweep import records
from orchestrator.sweep.rungs import Decision, StratifiedASHA
from orchestrator.sweep.scheduler import RUNGS, RungScheduler, restore

SIZE = {"params": 10, "macs_per_pixel": 2.0}


def rule() -> StratifiedASHA:
    return StratifiedASHA(rungs=(10, 20), reduction=2)


def reach(run: Store, name: str, images: int, bd_rate: float, at: float = 0.0) -> None:
    """What a trial leaves in the run folder when it reaches a rung."""
    student = Student(family="hyperprior", N=8, M=16)
    trial = Trial(trial_id=name, student=student, teacher=None, loss=Loss(), seed=0)
    record = records.read_trial(run, name) or records.fresh(trial, SIZE)
    rung = {"images_seen": images, "bd_rate_pct": bd_rate, "log_lagrangian_ratio": 0.0, "ended_at": at}
    path = records.checkpoint_folder(name, images, "token")
    (run / path).replace("state", b"x")
    record["rungs"].append(rung)
    record |= {"images_seen": images, "checkpoint": {"images_seen": images, "path": path, "files": {"state": "?"}}}
    records.write_trial(run, record)


def owned(run: Store) -> str:
    records.take_over(run, "token")
    return "token"


def result(name: str, images: int) -> dict[str, Any]:
    return {"sweep_trial_id": name, "images_seen": images}


def test_a_decision_is_on_disk_before_it_takes_effect(tmp_path: Path) -> None:
    run, told = Store(tmp_path), []

    def announce(record: dict[str, Any], rung: dict[str, Any], decision: Decision) -> None:
        saved = records.read_json(run, RUNGS)
        assert saved["reports"][-1]["decision"]["action"] == decision.action
        told.append((record["trial_id"], rung["images_seen"], decision.action))

    scheduler = RungScheduler(rule(), run, owned(run), announce)
    reach(run, "a", 10, 5.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("a", 10)) == "CONTINUE"
    assert records.read_trial(run, "a")["status"] == "running" and run.list("checkpoints/a")
    reach(run, "b", 10, 9.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("b", 10)) == "STOP"
    stopped = records.read_trial(run, "b")
    assert (stopped["status"], stopped["checkpoint"], run.list("checkpoints/b")) == ("stopped", None, [])
    assert stopped["rungs"][0]["decision"]["place"] == 2
    reach(run, "a", 20, 4.0)
    assert scheduler.on_trial_result(None, SimpleNamespace(), result("a", 20)) == "STOP"
    assert records.read_trial(run, "a")["status"] == "finished"
    assert told == [("a", 10, "continue"), ("b", 10, "stop"), ("a", 20, "end")]


def test_a_report_that_was_cut_off_is_made_on_restore(tmp_path: Path) -> None:
    run, told = Store(tmp_path), []
    scheduler = RungScheduler(rule(), run, owned(run), lambda *_: None)
    reach(run, "a", 10, 5.0)
    scheduler.on_trial_result(None, SimpleNamespace(), result("a", 10))
    reach(run, "b", 10, 9.0)  # killed before the driver heard of it
    restored = rule()
    restore(restored, run, "token", ["a", "b", "c"], lambda record, rung, decision: told.append(decision.action))
    assert told == ["stop"] and records.ended(records.read_trial(run, "b"))
    assert [report.trial_id for report, _ in restored.decisions()] == ["a", "b"]


def test_a_decision_missing_in_the_trials_file_is_written_there(tmp_path: Path) -> None:
    run = Store(tmp_path)
    reach(run, "a", 10, 5.0)
    reach(run, "b", 10, 9.0)
    killed = rule()
    for name in ("a", "b"):
        record = records.read_trial(run, name)
        killed.decide(records.report(record, record["rungs"][0]))
    records.write_json(run, RUNGS, killed.state())
    restore(rule(), run, "token", ["a", "b"], lambda *_: pytest.fail("nothing new is decided"))
    assert records.ended(records.read_trial(run, "b")) and not records.ended(records.read_trial(run, "a"))


def test_only_the_owner_of_a_run_folder_writes(tmp_path: Path) -> None:
    run = Store(tmp_path)
    records.take_over(run, "first")
    records.check_owner(run, "first")
    records.take_over(run, "second")
    with pytest.raises(records.NotOwner, match="taken over"):
        records.check_owner(run, "first")
    reach(run, "a", 10, 5.0)
    with pytest.raises(records.NotOwner, match="taken over"):
        RungScheduler(rule(), run, "first", lambda *_: None).on_trial_result(None, None, result("a", 10))
    assert not run.exists(RUNGS)
