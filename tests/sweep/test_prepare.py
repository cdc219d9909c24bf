"""Anchor, features and starts are made side by side; Ray's tasks are made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.features.fill.fill import FillReport
from orchestrator.photographs.photos import PhotographError
from orchestrator.spec.load import load_spec
from orchestrator.store.store import Store
from orchestrator.sweep import prepare as module
from orchestrator.sweep.forecast.account import PhaseTimes
from orchestrator.sweep.prepare import prepare

REPORT = FillReport(reused_shards=1, computed_shards=2, duplicated_shards=0, bytes=7, seconds=0.1, task_s=6.0)
MEASURES: Any = SimpleNamespace(complexity={"any": "cost"})


class Tasks:
    """Stands for `Pending`: notes what is asked of it."""

    def __init__(self, events: list[str], name: str, error: Exception | None = None) -> None:
        self.events, self.name, self.error = events, name, error

    def take_ready(self) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(f"{self.name} ready")

    def wait(self) -> None:
        self.events.append(f"{self.name} waited for")


@pytest.fixture
def run(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls `prepare`; the keyword `error`: of the anchor's tasks."""

    def call(events: list[str], error: Exception | None = None, **given: Any) -> Any:
        class Measuring:
            def __init__(self, *arguments: Any) -> None:
                events.append("anchor begun")
                arguments[-1](3.0)
                self.tasks = Tasks(events, "anchor", error)

            def result(self) -> Any:
                self.tasks.wait()
                return MEASURES

        def begin_starts(plan: Any, store: Any, say: Any, spent: Callable[[float], None]) -> Tasks:
            events.append("starts begun")
            spent(1.0)
            return Tasks(events, "starts")

        def fill(store: Any, crops: Any, plans: Any, train: Any, progress: Callable[[str], None]) -> FillReport:
            events.append("fill begun")
            progress("a line")
            time.sleep(0.05)
            return REPORT

        for name, fake in (("Measuring", Measuring), ("begin_starts", begin_starts), ("fill", fill)):
            monkeypatch.setattr(module, name, fake)
        spec = load_spec(tiny_spec, [f"store={tmp_path / 'store'}"])
        plan: Any = SimpleNamespace(spec=spec, students={}, validation=(), crops=None, feature_plans=(), train=())
        times = given.pop("times", PhaseTimes())
        known = {"measures": None, "starts": True, "features": True, "forecast": None, **given}
        return prepare(plan, Store(tmp_path / "run"), times, known.pop("measures"), **known)

    return call


def test_the_store_is_filled_while_anchor_and_starts_are_made(run: Callable[..., Any]) -> None:
    events: list[str] = []
    told: list[Any] = []
    times = PhaseTimes()
    prepared = run(events, times=times, forecast=told.append)
    assert events[:3] == ["starts begun", "anchor begun", "fill begun"]
    assert events[3:] == ["anchor ready", "starts ready", "anchor waited for", "starts waited for"]
    assert prepared.measures is MEASURES and prepared.stored_bytes == 7 and told == [{"any": "cost"}]
    total = sum(times.seconds.values())
    assert 0.05 <= total <= times.wall_s
    for phase, share in (("features", 0.6), ("anchor", 0.3), ("starts", 0.1)):  # as their tasks' 6, 3 and 1 seconds
        assert times.seconds[phase] == pytest.approx(share * total)


def test_an_error_of_the_anchor_ends_the_fill(run: Callable[..., Any]) -> None:
    events: list[str] = []
    with pytest.raises(PhotographError, match="gone"):
        run(events, error=PhotographError("gone"))
    assert events == ["starts begun", "anchor begun", "fill begun"]


def test_what_is_there_is_not_made_again(run: Callable[..., Any]) -> None:
    events: list[str] = []
    times = PhaseTimes()
    prepared = run(events, times=times, measures=MEASURES, starts=False, features=False)
    assert events == [] and prepared.stored_bytes == 0
    assert set(times.seconds) == {"features", "anchor", "starts"} and times.seconds["anchor"] == 0.0
