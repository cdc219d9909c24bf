"""The arithmetic of `benchmarks.stopping.sweep`, and that Ray's own scheduler is what `rays_asha` asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import testing.records
from benchmarks.stopping import large, sweep
from benchmarks.stopping.rays_asha import RaysAsha
from orchestrator.results.account import Account, Forecasts
from orchestrator.results.files import write_file
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import Report
from orchestrator.sweep.choose.simulate import Curve
from testing.records import record, rung
from tests.results.builders import byte_counts, forecast_of, gang_seconds

GOOD, BAD = (30.0, 20.0, 10.0), (300.0, 200.0, 100.0)


def curve(trial_id: str, size: str, values: tuple[float, ...]) -> Curve:
    macs = {"n16": 2000.0, "n32": 7000.0}[size]
    return Curve(
        trial_id=trial_id,
        complexity_class=size,
        macs_per_pixel=macs,
        bd_rate_pct=values,
        log_lagrangian_ratio=values,
        seconds=(1.0, 1.0, 1.0),
    )


# the large one first: what reports first goes on in any case
GRID = [curve("2", "n32", GOOD), curve("1", "n16", BAD), curve("3", "n16", (310.0, 210.0, 110.0))]
GRID += [curve("4", "n32", (31.0, 21.0, 11.0))]


def test_the_sweeps_specification_is_where_the_benchmarks_look() -> None:
    spec: Spec = load_spec(sweep.SPEC)
    assert large.SPEC == sweep.SPEC and spec.early_stopping.rule == "none"


def test_rays_asha_stops_what_is_below_rays_percentile() -> None:
    first = Report(
        trial_id="a",
        complexity_class="n16",
        macs_per_pixel=1.0,
        images_seen=8,
        bd_rate_pct=10.0,
        bd_rate_reason=None,
        log_lagrangian_ratio=0.0,
    )
    made = RaysAsha(rule="asha", rungs=(8, 16), reduction=2)
    # 14.9 is ahead of the mean of 10 and 20: ours would have one place for three
    for name, rate, action in (
        ("a", 10.0, "continue"),
        ("b", 20.0, "stop"),
        ("c", 14.9, "continue"),
        ("d", None, "stop"),
    ):
        report = replace(first, trial_id=name, bd_rate_pct=rate, bd_rate_reason=None if rate else "not-rising")
        assert made.decide(report).action == action
    assert made.decide(replace(first, images_seen=16)).action == "end"
    with pytest.raises(ValueError, match=r"rungs \[8, 16, 32\]"):
        RaysAsha(rule="asha", rungs=(8, 16, 24), reduction=2)


def test_replayed_rules_stop_a_class_or_keep_it() -> None:
    rules = sweep.replayed(GRID)
    assert rules["stratified"]["classes_kept"] and not rules["asha"]["classes_kept"]
    assert rules["stratified"]["hypervolume"] == pytest.approx(1.0)
    assert rules["stratified"]["images"] == pytest.approx((2 + 2 / 9) / 4)
    assert rules["asha"]["hypervolume"] < 1.0
    assert not rules["ray-asha"]["classes_kept"]


def write(run: Store, name: str, size: str, values: tuple[float, ...]) -> None:
    times = dict.fromkeys(("training_s", "validation_s", "saving_s"), 1.0)
    rungs = [
        rung(images, value, log_lagrangian_ratio=value, **times)
        for images, value in zip(sweep.RUNGS, values, strict=False)
    ]
    student = Student(family="hyperprior", N=int(size[1:]), M=96)
    macs = curve(name, size, values).macs_per_pixel
    testing.records.write(run, record(name, rungs, student=student, macs_per_pixel=macs))


def test_a_real_sweep_stands_beside_its_grid_and_its_plan(tmp_path: Path) -> None:
    run = Store(tmp_path)
    for name, size, values in (
        ("1", "n16", BAD[:1]),
        ("2", "n32", GOOD),
        ("3", "n16", (311.0,)),
        ("4", "n32", (31.0,)),
    ):
        write(run, name, size, values)
    account = Account(
        finished=True,
        continued=False,
        wall_s=110.0,
        phases_s={},
        gangs=gang_seconds(),
        images=1920,
        bytes=byte_counts(weights=50.0),
        turnaround_median_s=None,
        turnaround_max_s=None,
    )
    write_file(run, "account.json", account)
    expected = forecast_of(wall_s=100.0, images=1920.0, bytes=byte_counts(weights=100.0))
    write_file(run, "forecast.json", Forecasts(least=expected, expected=expected, most=expected))
    figures = sweep.real(run, "stratified", GRID)
    assert figures["images"] == pytest.approx((3 * 160 + 1440) / (4 * 1440))
    assert (figures["trials_stopped"], figures["trials_that_differ_from_the_grid"]) == (3, 1)
    assert not figures["classes_kept"] and figures["hypervolume"] < 1.0
    assert figures["plan"]["wall_s"]["taken_over_planned"] == pytest.approx(1.1)
    assert figures["plan"]["weights"]["taken_over_planned"] == pytest.approx(0.5)
