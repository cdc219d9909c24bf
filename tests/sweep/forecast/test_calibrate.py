"""The plan of a sweep, measured on a real Ray with real gangs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.features.read import prefetch, reader
from orchestrator.results.account import FORECAST
from orchestrator.results.files import needed
from orchestrator.spec.load import load_spec
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.forecast import work
from orchestrator.sweep.forecast.calibrate import calibrate, scratch_beside
from orchestrator.sweep.forecast.calibrate_gangs import layouts_to_compare
from orchestrator.sweep.forecast.calibration import CALIBRATION, Calibration
from orchestrator.sweep.forecast.forecast import CASES, forecast
from orchestrator.sweep.forecast.text import lines
from orchestrator.sweep.forecast.work import begin_forecast, remember, remembered, work_of
from orchestrator.sweep.plan import Plan


@pytest.fixture
def plan(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """One rank, and batches that two could not share: no other ways to use the CPUs are measured."""
    monkeypatch.setattr(work, "_folder", lambda: tmp_path / "cache")
    folders = [f"results={tmp_path / 'new' / 'runs'}", f"store={tmp_path / 'store'}"]
    training = ["training.ranks_per_trial=1", "training.batch_size=5", "early_stopping.rungs=[30, 60]"]
    spec: Spec = load_spec(tiny_spec, [*folders, *training])
    return Plan.of(spec.resolved(tmp_path))


@pytest.mark.long
def test_a_calibration_measures_every_part_and_leaves_nothing(local_ray: None, plan: Plan, tmp_path: Path) -> None:
    with scratch_beside(plan.spec) as scratch:
        measured, complexity = calibrate(plan, scratch, 1, 1.0, 5.0, lambda line: None)
    assert [path.name for path in tmp_path.rglob("*")] == []

    assert [student.distilled for student in measured.students] == [False, True] and measured.layouts == ()
    for student in measured.students:
        cost = student.training
        assert min(cost.image_s, cost.validation_s, cost.saving_s, cost.build_s, student.coding.stream_s) > 0
        assert 0 <= cost.wait_s <= cost.image_s and cost.checkpoint_bytes > cost.weights_bytes > 1e6
    assert {fill.title for fill in measured.fills} == {features.title for features in plan.feature_plans}
    assert measured.start.gang_s > 1 and measured.anchor.points == 11 and measured.registry.version_s > 0

    work = work_of(plan, complexity, 1)
    assert work.trials == 3 and {group.distilled for group in work.groups} == {False, True}
    assert {missing.title for missing in work.missing} == {"pixels", "teacher hyperprior", "teacher mean-scale"}
    assert {missing.crops for missing in work.missing} == {64} and len(lines(work, measured)) > 10

    run = Store(tmp_path / "run")
    assert begin_forecast(plan, run, 1) is None and run.list() == []  # nothing is known
    remember(plan, measured)
    assert remembered(plan) == measured
    save = begin_forecast(plan, run, 1)
    assert save is not None
    save(complexity)
    saved = json.loads(run.read(FORECAST))
    assert saved["expected"]["wall_s"] == forecast(work, measured).wall_s and {*CASES} < {*saved}
    assert needed(run, CALIBRATION, Calibration) == measured


def test_a_reader_opens_no_more_than_is_said(plan: Plan) -> None:
    assert work.STEPS_AHEAD == reader.LOOKAHEAD + prefetch.DEPTH
    crops, shards = len(plan.crops.crops), len(plan.crops.shards)
    assert work._opened(plan) == [(crops, shards)] * 2  # one rank, and 68 steps ahead of it is all of this plan


@pytest.mark.parametrize(
    ("ranks", "batch_size", "cpus", "expected"),
    [
        (2, 8, 2, [(1, 2), (2, 1)]),
        (1, 8, 2, [(1, 2), (2, 1)]),
        (2, 8, 4, [(2, 2), (4, 1)]),
        (3, 9, 4, []),
        (1, 8, 1, []),
        (1, 5, 2, []),
    ],
)
def test_two_gangs_are_compared_with_one_of_twice_the_ranks(
    plan: Plan, monkeypatch: Any, ranks: int, batch_size: int, cpus: int, expected: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    update = {"ranks_per_trial": ranks, "batch_size": batch_size}
    spec = plan.spec.model_copy(update={"training": plan.spec.training.model_copy(update=update)})
    assert layouts_to_compare(spec) == expected
