"""The arithmetic of `benchmarks.whole.turnaround`, and what it watches processes with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.common.facts import ROOT
from benchmarks.whole import flat, turnaround
from benchmarks.whole.sweeps import Bench
from orchestrator.results.account import Account
from orchestrator.spec.load import load_spec
from orchestrator.sweep.choose.space import trials
from testing.records import rung
from testing.tree import CpuTime, titled
from tests.results.builders import byte_counts, gang_seconds


@pytest.fixture
def bench(tmp_path):
    return Bench(load_spec(ROOT / "jobs" / "specs" / "quickstart.yaml").resolved(ROOT), tmp_path)


def row(first_step_at, training_s, validation_s):
    trained_at = first_step_at + training_s
    times = {"first_step_at": first_step_at, "trained_at": trained_at, "ended_at": trained_at + validation_s + 0.5}
    return {**times, "training_s": training_s, "validation_s": validation_s}


def test_a_turnaround_leaves_out_the_validation_of_the_trial_before():
    rows = [row(10.0, 2.0, 1.0), row(13.75, 3.0, 4.0), row(30.0, 1.0, 1.0)]
    assert turnaround.turnarounds(rows) == [None, 0.75, 9.25]


def test_the_moments_of_a_rung_are_read_from_its_record():
    its = row(100.0, 8.0, 2.0)
    expected = {**its, "saving_s": 0.5, "turnaround_s": None}
    times = {name: expected[name] for name in ("training_s", "validation_s", "saving_s", "ended_at")}
    assert turnaround.timed("01-x", rung(8, **times)) == {"trial_id": "01-x", **expected}


def test_wall_and_cpu_time_are_between_the_first_step_and_the_last_end():
    rows = [row(10.0, 2.0, 1.0), row(14.0, 3.0, 1.0), row(19.0, 3.0, 1.0)]
    for timed, gap_s in zip(rows, (None, 1.0, 4.0), strict=True):
        timed["turnaround_s"] = gap_s
    cpu: Any = SimpleNamespace(between=lambda begin, end: 10 * (end - begin))
    figures = turnaround.figures(rows, cpu)
    assert (figures["turnaround_median_s"], figures["turnaround_max_s"]) == (2.5, 4.0)
    assert (figures["wall_s"], figures["cpu_s"], figures["training_s"]) == (13.5, 135.0, 8.0)


def test_shares_are_of_the_phase_with_and_without_the_first_start():
    account = Account(
        finished=True,
        continued=False,
        wall_s=110.0,
        phases_s={"trials": 100.0, "anchor": 7.0},
        gangs=gang_seconds(training_s=60.0, startup_s=30.0, idle_s=10.0),
        images=8,
        bytes=byte_counts(),
        turnaround_median_s=None,
        turnaround_max_s=None,
    )
    shares = turnaround.shares(account, start_s=20.0)
    assert (shares["training"], shares["startup"], shares["idle"]) == (0.6, 0.3, 0.1)
    assert (shares["training_without_start"], shares["gang_start"]) == (0.75, 0.2)


def test_a_variation_trains_other_trials_and_stops_none(bench):
    spec = bench.varied("side", 8, [16, 32], training={"ranks_per_trial": 1}, concurrent_trials=2)
    assert (spec.trials, spec.early_stopping.rule, spec.early_stopping.rungs) == (8, "none", (16, 32))
    assert (spec.training.ranks_per_trial, spec.concurrent_trials) == (1, 2)
    assert spec.training.learning_rate == bench.spec.training.learning_rate
    assert spec.results == str(bench.work / "side" / "runs")
    (bench.folder("side", spec) / "output.txt").write_text("of an earlier run")
    folder = bench.folder("side", spec)
    assert [path.name for path in folder.iterdir()] == ["spec.yaml"] and load_spec(folder / "spec.yaml") == spec


def test_images_fill_the_seconds_asked_for_in_whole_batches(bench):
    few, many = bench.spec.students[:2]
    bench.__dict__["pace"] = {few: 0.01, many: 0.03}
    assert bench.images(60.0, [few]) == 6000
    assert bench.images(1.0, [few, many]) == 48
    assert bench.images(0.001, [many]) == 8


def test_many_trials_are_all_configurations_with_several_seeds(bench):
    spec = flat.of_many(bench.spec, 100)
    every = trials(spec)
    assert len(every) == spec.trials >= 100
    assert {trial.teacher for trial in every} == {None, "hyperprior", "mean-scale"}
    assert {trial.student for trial in every} == set(bench.spec.students)


def test_memory_has_a_slope_after_the_first_trials():
    rows = [{"number": n, "mb": {"rank 0": 1000.0 + (50 * n if n < 25 else 0.5 * n)}} for n in range(1, 121)]
    rows[-1]["mb"] = {}  # gone before it was read
    slope = flat.summary(rows)["rank 0"]
    assert slope["slope_mb_per_trial"] == pytest.approx(0.5)
    assert (slope["at_mb"][10], slope["at_mb"][100], slope["max_mb"]) == (1500.0, 1050.0, 2200.0)


def test_cpu_time_counts_processes_that_have_ended():
    """The process works after the first look at it, and then waits until that was seen, however slow the machine is."""
    work = "import time\ninput()\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ninput()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    process = subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with CpuTime(process.pid, every_s=0.02).sampled() as cpu:
        while not cpu.so_far:
            time.sleep(0.02)
        before = cpu.so_far
        process.stdin.write(b"\n")
        process.stdin.flush()
        while cpu.so_far < before + 0.5:
            time.sleep(0.02)
        process.communicate(b"\n")
    assert cpu.between(0, time.time()) >= 0.49  # from the first look on; the kernel counts in steps of 10 ms


def test_processes_are_found_by_how_their_command_begins():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert [process.pid for process in titled(os.getpid(), (f"{sys.executable} -c input()",))] == [child.pid]
        assert titled(child.pid, ("ray::Rank",)) == []
    finally:
        child.communicate(b"\n")
    assert titled(child.pid, ("",)) == []


def test_a_part_that_is_not_run_keeps_its_figures(tmp_path, monkeypatch):
    path = tmp_path / "turnaround.json"
    path.write_text(json.dumps({"machine": {}, "memory": {"trials": 7}, "share": {"segment_images": 1}}))
    monkeypatch.setitem(turnaround.PARTS, "share", lambda bench, options: {"segment_images": 2})
    given = ["--work", str(tmp_path / "work"), "--results", str(tmp_path), "--parts", "share"]
    assert turnaround.main(given) == 0
    written = json.loads(path.read_text())
    assert written["memory"] == {"trials": 7} and written["share"]["segment_images"] == 2
    assert written["share"]["settings"]["segment_s"] == 60.0 and written["machine"]["cores"]
