"""A whole sweep whose losers are paused, undisturbed and killed in between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.store.store import Store
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord
from tests.sweep.conftest import printed, start_sweep

pytestmark = pytest.mark.slow  # whole sweeps


@pytest.fixture(scope="module")
def spec(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials of one class on one gang."""
    data: dict[str, Any] = yaml.safe_load(tiny_spec.read_text())
    data |= {
        "trials": 6,
        "teachers": [data["teachers"][0]],
        "losses": [{"latent": weight} for weight in (3.0, 1.0, 0.3, 0.1, 0.03)],
        "training": {"batch_size": 8, "ranks_per_trial": 1, "learning_rate": 1e-4},
        "early_stopping": {"rungs": [32, 64, 96], "reduction": 2, "rule": "pause"},
        "candidates": 1,
    }
    path = tmp_path_factory.mktemp("spec") / "paused.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def decided(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Trial -> its decisions."""
    fields = ("rung", "action", "place", "places", "reported")
    return {
        record.trial_id: [tuple(getattr(rung.decision, name) for name in fields) for rung in record.rungs]
        for record in records(folder)
    }


def records(folder: Path) -> list[TrialRecord]:
    return read_trials(Store(folder / "runs" / "tiny"))


@pytest.fixture(scope="module")
def undisturbed(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start_sweep(spec, folder).wait(500) == 0, printed(folder)
    return folder


def test_paused_trials_go_on_and_at_the_end_none_is_paused(undisturbed: Path) -> None:
    found = records(undisturbed)
    assert len(found) == 6 and {record.status for record in found} <= {"finished", "stopped"}
    reached = [len(record.rungs) for record in found]
    assert sorted(reached) == [1, 1, 1, 2, 2, 3]  # a half of six, a half of three
    for record in found:
        *before, last = (rung.decision.action for rung in record.rungs if rung.decision is not None)
        assert set(before) <= {"continue"} and last == ("end" if record.status == "finished" else "stop")
    lines = printed(undisturbed)
    assert " pause" in lines and any(line.endswith(" pause") for line in lines.splitlines())


@pytest.mark.long
def test_a_sweep_killed_while_a_trial_is_paused_decides_as_the_undisturbed_one(
    spec: Path, undisturbed: Path, tmp_path: Path
) -> None:
    killed = start_sweep(spec, tmp_path)
    deadline = time.monotonic() + 400
    while not any(record.status == "paused" for record in (records(tmp_path) if begun(tmp_path) else ())):
        assert killed.poll() is None and time.monotonic() < deadline, printed(tmp_path)
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert any(record.status == "paused" for record in records(tmp_path))
    assert start_sweep(spec, tmp_path).wait(500) == 0, printed(tmp_path)
    assert decided(tmp_path) == decided(undisturbed)
    weights = {record.trial_id: record.weights_digest for record in records(undisturbed)}
    assert {record.trial_id: record.weights_digest for record in records(tmp_path)} == weights


def begun(folder: Path) -> bool:
    return (folder / "runs" / "tiny" / "trials").is_dir()
