"""Whole sweeps, in processes of their own: undisturbed, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
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
    assert sorted(found) == [
        "01-hyperprior-n64-control",
        "02-hyperprior-n64-hyperprior-w1",
        "03-hyperprior-n64-mean-scale-w1",
    ]
    assert {record["status"] for record in found.values()} == {"finished", "stopped"}
    anchor = load(undisturbed, "anchor.json")
    assert anchor["teacher"] in ("hyperprior", "mean-scale") and len(anchor["curve"]) >= 10
    for trial_id, record in found.items():
        assert [rung["images_seen"] for rung in record["rungs"]] == [32, 64, 96][: len(record["rungs"])]
        assert all(rung["anchor_digest"] == anchor["digest"] for rung in record["rungs"])
        assert all(rung["decision"]["action"] == "continue" for rung in record["rungs"][:-1])
        assert (undisturbed / "runs" / "tiny" / "weights" / f"{trial_id}.safetensors").is_file()
    front = load(undisturbed, "front.json")
    assert front and all(len(entry["points"]) == 5 and entry["bd_rate_pct"] < 200 for entry in front)
    assert "<svg" in (undisturbed / "runs" / "tiny" / "report.html").read_text()
    account = load(undisturbed, "account.json")
    assert account["gangs"]["startup_s"] > 0 and account["turnaround_median_s"] > 0
    assert account["images"] == sum(record["images_seen"] for record in found.values())
    assert account["gangs"]["idle_s"] > 0 and min(account["bytes"].values()) > 1e6


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
    first = "01-hyperprior-n64-control"

    # with its decision: one that was cut off before is made, and printed, by the next start
    def decided(found: dict[str, Any]) -> bool:
        return any("decision" in rung for rung in found.get(first, {"rungs": ()})["rungs"])

    kill_when(tiny_spec, tmp_path, decided)
    output = kill_when(tiny_spec, tmp_path, lambda found: found[first]["status"] == "finished")
    assert "0 of 3 trials reused, 1 go on from their last checkpoint" in output and f"{first}" in output
    assert not any(first in line and " 32 images" in line for line in output.splitlines()), output

    last = start_sweep(tiny_spec, tmp_path)
    output, _ = last.communicate(timeout=400)
    assert last.returncode == 0 and "1 of 3 trials reused" in output, output
    assert not any(first in line and " images" in line for line in output.splitlines()), output

    for trial_id, record in trials(undisturbed).items():
        restored = trials(tmp_path)[trial_id]
        assert restored["status"] == record["status"]
        for ours, theirs in zip(restored["rungs"], record["rungs"], strict=True):
            assert ours["decision"] == theirs["decision"] and ours["points"] == theirs["points"]


def kill_when(spec: Path, folder: Path, reached: Callable[[dict[str, Any]], bool]) -> str:
    """Starts the sweep, and ends its driver by SIGKILL as soon as its trials are there. Returns what it printed."""
    process = start_sweep(spec, folder)
    deadline = time.monotonic() + 400
    while not ((folder / "runs" / "tiny" / "trials").is_dir() and reached(trials(folder))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    return process.communicate(timeout=60)[0]
