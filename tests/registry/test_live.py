"""Trials are logged while a sweep runs, which never waits for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from ray import cloudpickle

from orchestrator.logs import warn
from orchestrator.registry import live
from orchestrator.registry.live import LiveLog
from orchestrator.trials.record import TrialRecord
from testing.records import record, rung, write
from tests.registry.somebody import SWEEP, Somebody


def test_runs_are_there_while_the_sweep_runs_and_are_closed_at_its_end(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    one = Somebody(tmp_path, uri)
    began = rung(512, -1.0, ended_at=1000.0, training_s=30.0, startup_s=10.0)
    first, second = record("01-a", [began]), record("02-b", [began], status="stopped")
    write(one.run, first)
    write(one.run, second)
    warnings: list[str] = []
    with LiveLog(one.run, SWEEP, warnings.append) as log:
        log.rung(first)
        log.rung(second)
    assert warnings == []
    runs = {run.info.run_name: run for run in one.runs()}
    assert {name: run.info.status for name, run in runs.items()} == {"01-a": "RUNNING", "02-b": "FINISHED"}
    assert {(run.info.start_time, run.data.metrics["estimated_bd_rate_pct"]) for run in runs.values()} == {
        (960_000, -1.0)
    }
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    assert one.client.get_run(parent).info.status == "RUNNING"

    later = rung(1024, -2.0, ended_at=2000.0)
    ended = record("01-a", [began, later], status="finished")
    known = one.registry.log_trials([ended, second])
    assert {run.info.run_id for run in runs.values()} == {*known.values()} and len(one.runs()) == 2
    run = one.client.get_run(known["01-a"])
    assert (run.info.status, run.info.end_time) == ("FINISHED", 2_000_000)
    history = one.client.get_metric_history(known["01-a"], "estimated_bd_rate_pct")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (512, -1.0, 1_000_000),
        (1024, -2.0, 2_000_000),
    ]
    assert one.client.get_run(parent).info.status == "FINISHED"


def test_a_trial_that_goes_on_runs_again(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    trial = record("01-a", [rung(512, -1.0)], status="saved")
    known = one.registry.log_trials([trial])
    assert one.client.get_run(known["01-a"]).info.status == "KILLED"
    one.registry.log_rung(trial.changed(status="running", rungs=(*trial.rungs, rung(1024, -2.0))), trial)
    assert one.client.get_run(known["01-a"]).info.status == "RUNNING"


def test_an_mlflow_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    one = record("01-a", [rung(512, -1.0)])
    warnings: list[str] = []
    with LiveLog(Somebody(tmp_path, f"sqlite:///{tmp_path}/other.db").run, SWEEP, warnings.append) as log:
        log.rung(one)
        log._thread.join(60)
        log.rung(one)
    (line,) = warnings
    assert line.startswith("live view: MLflow at localhost:5000: ") and "\n" not in line


def test_a_slow_mlflow_holds_nothing_up_and_gets_the_newest_of_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[int] = []
    busy, go = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, *_: object) -> None:
            pass

        def log_rung(self, trial: TrialRecord, first: TrialRecord) -> None:
            busy.set()
            assert go.wait(60)
            logged.append(trial.images_seen)

    monkeypatch.setattr(live, "Registry", Slow)
    run = Somebody(tmp_path, f"sqlite:///{tmp_path}/other.db").run
    with LiveLog(run, SWEEP, print) as log:
        log.rung(record("01-a", [rung(1)]))
        assert busy.wait(60)
        began = time.monotonic()
        for images in range(2, 1000):
            log.rung(record("01-a", [rung(images)]))
        assert time.monotonic() - began < 30
        go.set()
    assert logged == [1, 999]
    log.rung(record("01-a", [rung(1000)]))  # after its end nothing is taken
    assert logged == [1, 999] and not log._waiting


def test_tune_can_save_it_while_it_works(tmp_path: Path) -> None:
    run = Somebody(tmp_path, f"sqlite:///{tmp_path}/other.db").run
    with LiveLog(run, SWEEP, warn) as log:
        take = cloudpickle.loads(cloudpickle.dumps(log.rung))
    take(record("01-a", [rung(1)]))  # and nothing is logged
    assert not (tmp_path / "quick").exists()


def test_a_sweep_that_ends_by_an_exception_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(live, "Registry", lambda *_: stuck.wait(60))
    monkeypatch.setattr(live, "PATIENCE_S", 1000.0)
    run = Somebody(tmp_path, f"sqlite:///{tmp_path}/other.db").run
    with pytest.raises(KeyboardInterrupt), LiveLog(run, SWEEP, lambda line: None) as log:
        log.rung(record("01-a", [rung(1)]))
        raise KeyboardInterrupt
    stuck.set()
