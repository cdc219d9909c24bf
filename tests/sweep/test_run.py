"""Whole sweeps, in processes of their own: undisturbed, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.conftest import start_sweep


def load(folder: Path, name: str) -> Any:
    return json.loads((folder / "runs" / "tiny" / name).read_text())


def trials(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "runs" / "tiny" / "trials").glob("*.json")}


@pytest.fixture(scope="module")
def undisturbed(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start_sweep(tiny_spec, folder)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    (folder / "output.txt").write_text(output)
    return folder


def test_a_sweep_leaves_a_folder_that_explains_itself(undisturbed: Path) -> None:
    found = trials(undisturbed)
    assert sorted(found) == ["01-hyperprior-n8-control", "02-hyperprior-n8-n24-w1", "03-hyperprior-n8-n16-w1"]
    assert {record["status"] for record in found.values()} == {"finished", "stopped"}
    anchor = load(undisturbed, "anchor.json")
    assert anchor["teacher"] == "n24" and len(anchor["curve"]) >= 10
    for trial_id, record in found.items():
        assert [rung["images_seen"] for rung in record["rungs"]] == [64, 128, 192][: len(record["rungs"])]
        assert all(rung["anchor_digest"] == anchor["digest"] for rung in record["rungs"])
        assert all(rung["decision"]["action"] == "continue" for rung in record["rungs"][:-1])
        assert (undisturbed / "runs" / "tiny" / "weights" / f"{trial_id}.safetensors").is_file()
    front = load(undisturbed, "front.json")
    assert front and all(len(entry["points"]) == 5 and entry["bd_rate_pct"] < 200 for entry in front)
    assert "<svg" in (undisturbed / "runs" / "tiny" / "report.html").read_text()
    account = load(undisturbed, "account.json")
    assert account["gangs"]["startup_s"] > 0 and account["turnaround_median_s"] > 0


def test_the_gang_stays_warm(undisturbed: Path) -> None:
    rungs = [rung for record in trials(undisturbed).values() for rung in record["rungs"]]
    assert sum(rung["startup_s"] > 0 for rung in rungs) == 1
    assert sum(rung["turnaround_s"] is not None for rung in rungs) == len(trials(undisturbed)) - 1


def test_started_again_it_reuses_everything(undisturbed: Path, tiny_spec: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*") if path.is_file()}
    process = start_sweep(tiny_spec, undisturbed)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "trials: 3 of 3 reused" in output, output
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*") if path.is_file()} == before


def test_killed_and_started_again_it_decides_as_if_undisturbed(
    undisturbed: Path, tiny_spec: Path, tmp_path: Path
) -> None:
    first = start_sweep(tiny_spec, tmp_path)
    deadline = time.monotonic() + 300
    while not any(len(record["rungs"]) == 2 for record in _readable(tmp_path).values()):
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    cut = {trial_id: record["images_seen"] for trial_id, record in _readable(tmp_path).items()}

    second = start_sweep(tiny_spec, tmp_path)
    output, _ = second.communicate(timeout=400)
    assert second.returncode == 0, output
    assert "go on from their last rung" in output

    for trial_id, record in trials(undisturbed).items():
        restored = trials(tmp_path)[trial_id]
        assert restored["status"] == record["status"]
        for ours, theirs in zip(restored["rungs"], record["rungs"], strict=True):
            assert ours["decision"] == theirs["decision"] and ours["points"] == theirs["points"]
    again = [line for line in output.splitlines() if line.startswith("[")]
    for trial_id, images in cut.items():
        assert not any(
            trial_id in line and f" {rung} images" in line for line in again for rung in range(0, images, 64)
        )
    decisions = [
        [
            (entry["trial_id"], entry["images_seen"], entry["decision"])
            for entry in load(folder, "rungs.json")["reports"]
        ]
        for folder in (undisturbed, tmp_path)
    ]
    assert decisions[0] == decisions[1]


def _readable(folder: Path) -> dict[str, Any]:
    return trials(folder) if (folder / "runs" / "tiny" / "trials").is_dir() else {}
