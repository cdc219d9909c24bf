"""Whole sweeps, in processes of their own: undisturbed, killed, and started again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.registry.reach import RegistryError
from orchestrator.store.store import Store
from orchestrator.sweep.finished import publish
from orchestrator.sweep.forecast.account import PhaseTimes
from orchestrator.trials.files import read_trials
from tests.sweep.conftest import printed, start_sweep

pytestmark = pytest.mark.slow  # whole sweeps

FIRST, SECOND = "01-hyperprior-n64-control", "02-hyperprior-n64-hyperprior-w1"


def load(folder: Path, name: str) -> Any:
    return json.loads((folder / "runs" / "tiny" / name).read_text())


def trials(folder: Path) -> dict[str, Any]:
    paths = sorted((folder / "runs" / "tiny" / "trials").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


@pytest.fixture(scope="module")
def drawing_spec(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four trials, one of them the control; TPE draws the last one from the results of others."""
    losses = [{name: {"low": 0.01, "high": 1.0}} for name in ("latent", "reconstruction")]
    data = yaml.safe_load(tiny_spec.read_text()) | {"trials": 4, "losses": losses, "search": {"method": "tpe"}}
    path = tmp_path_factory.mktemp("spec") / "drawing.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def undisturbed(drawing_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start_sweep(drawing_spec, folder).wait(400) == 0, printed(folder)
    return folder


def test_a_sweep_leaves_a_folder_that_explains_itself(undisturbed: Path) -> None:
    records = trials(undisturbed)
    assert list(records)[:3] == [FIRST, SECOND, "03-hyperprior-n64-mean-scale-w1"] and len(records) == 4
    assert {record["status"] for record in records.values()} == {"finished", "stopped"}
    anchor = load(undisturbed, "anchor.json")
    assert anchor["anchor"]["teacher"] in ("hyperprior", "mean-scale") and len(anchor["anchor"]["curve"]) >= 10
    for trial_id, record in records.items():
        assert [rung["images_seen"] for rung in record["rungs"]] == [32, 64, 96][: len(record["rungs"])]
        assert all(rung["anchor_digest"] == anchor["digest"] for rung in record["rungs"])
        assert all(rung["decision"]["action"] == "continue" for rung in record["rungs"][:-1])
        weights = undisturbed / "runs" / "tiny" / record["weights"]
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["weights_digest"]
        assert list((undisturbed / "runs" / "tiny" / "weights" / trial_id).iterdir()) == [weights]
    front = load(undisturbed, "front.json")["students"]
    assert front and all(len(entry["points"]) == 5 and entry["bd_rate_pct"] < 200 for entry in front)
    assert "<svg" in (undisturbed / "runs" / "tiny" / "report.html").read_text()
    account = load(undisturbed, "account.json")
    assert account["gangs"]["startup_s"] > 0 and account["turnaround_median_s"] > 0
    assert account["images"] == sum(record["images_seen"] for record in records.values())
    assert account["gangs"]["idle_s"] > 0 and min(account["bytes"].values()) > 1e6


def test_the_gang_stays_warm(undisturbed: Path) -> None:
    rungs = [rung for record in trials(undisturbed).values() for rung in record["rungs"]]
    assert sum(rung["startup_s"] > 0 for rung in rungs) == 1
    assert sum(rung["turnaround_s"] is not None for rung in rungs) == len(trials(undisturbed)) - 1


def test_a_trial_s_loss_is_the_one_that_was_drawn(undisturbed: Path) -> None:
    control, *drawn = trials(undisturbed).values()
    assert control["teacher"] is None
    for record in drawn:
        (name,) = (choice for choice in record["choices"] if choice.startswith("losses."))
        assert record["loss"] == {name.rpartition(".")[2]: record["choices"][name]}


def only_line(folder: Path) -> str:
    """What a sweep printed besides how many photographs it uses."""
    (line,) = (line for line in printed(folder).splitlines() if not line.startswith("photographs."))
    return line


@pytest.mark.parametrize("name", ["account.json", "anchor.json"])
def test_a_folder_of_an_earlier_version_is_one_line_and_left_alone(
    undisturbed: Path, drawing_spec: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    file = tmp_path / "runs" / "tiny" / name
    content = json.loads(file.read_text())
    del content["format"]
    file.write_text(json.dumps(content))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert start_sweep(drawing_spec, tmp_path).wait(120) == 2
    line = only_line(tmp_path)
    assert line.startswith(f"file://{file}: no format number, but this version reads format 1: go on with the version")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_started_again_it_reuses_everything(undisturbed: Path, drawing_spec: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*") if path.is_file()}
    assert start_sweep(drawing_spec, undisturbed).wait(120) == 0 and "trials: 4 of 4 reused" in printed(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*") if path.is_file()} == before


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """The finished sweep without MLflow and report; its features were pruned since."""
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "tiny"
    (run / "mlflow.db").unlink()
    (run / "report.html").unlink()
    shutil.rmtree(run / "mlartifacts")
    return tmp_path


@pytest.mark.long
def test_a_finished_sweep_is_brought_where_it_is_missing(undisturbed: Path, drawing_spec: Path, copied: Path) -> None:
    students = load(undisturbed, "front.json")["students"]
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{copied}/elsewhere.db"}
    nowhere: dict[str, str] = {}
    for variables in (nowhere, elsewhere):
        assert start_sweep(drawing_spec, copied, **variables).wait(400) == 0, printed(copied)
        output = printed(copied)
        assert f"{len(students)} versions of lic-distillery-tiny-" in output and "registered, 0 reused" in output
        assert "<svg" in (copied / "runs" / "tiny" / "report.html").read_text()
        assert load(copied, "front.json")["students"] == students
        assert not (copied / "store").exists()  # nothing is filled for what is not trained
    assert trials(copied) == trials(undisturbed)


@pytest.mark.long
def test_a_finished_sweep_codes_again_what_is_missing(undisturbed: Path, drawing_spec: Path, copied: Path) -> None:
    run = copied / "runs" / "tiny"
    shutil.rmtree(run / "coded")
    for name in ("front.json", "account.json", "complexity.json"):
        (run / name).unlink()
    assert start_sweep(drawing_spec, copied).wait(400) == 0, printed(copied)
    for name in ("front.json", "complexity.json", "coded/anchor.json"):
        assert load(copied, name) == load(undisturbed, name)
    assert load(copied, "account.json")["finished"] and trials(copied) == trials(undisturbed)
    assert not (copied / "store" / "features").exists()


@pytest.mark.long
def test_lost_weights_are_named_and_trained_again(undisturbed: Path, drawing_spec: Path, copied: Path) -> None:
    shutil.copytree(undisturbed / "store", copied / "store")
    before = trials(undisturbed)[SECOND]
    (copied / "runs" / "tiny" / before["weights"]).unlink()
    assert start_sweep(drawing_spec, copied).wait(400) == 1
    lost = f"{before['weights']} is gone; without trials/{SECOND}.json the same command trains this trial again"
    assert printed(copied).splitlines()[-1].endswith(lost)
    assert (copied / "runs" / "tiny" / "report.html").exists()
    (copied / "runs" / "tiny" / "trials" / f"{SECOND}.json").unlink()
    assert start_sweep(drawing_spec, copied).wait(400) == 0, printed(copied)
    again = trials(copied)  # drawn and decided anew, among all that have reported by now
    (second,) = (record for name, record in again.items() if name.startswith(SECOND[:3]))
    assert second["status"] in ("finished", "stopped") and len(again) == 4
    assert (copied / "runs" / "tiny" / second["weights"]).exists()


def test_a_file_that_cannot_be_made_again_is_named(drawing_spec: Path, copied: Path) -> None:
    (copied / "runs" / "tiny" / "versions.json").unlink()
    assert start_sweep(drawing_spec, copied).wait(400) == 2
    assert printed(copied).splitlines()[-1].endswith("versions.json is missing: every finished sweep has it")


def test_report_and_account_are_written_whatever_mlflow_says(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run, accounts = Store(copied / "runs" / "tiny"), list[int]()
    with pytest.raises(RegistryError, match=r"^MLflow at http://127.0.0.1:1: [^\n]*; results are in the run folder"):
        publish(run, "0" * 64, read_trials(run), (), PhaseTimes(), before_report=lambda: accounts.append(1))
    assert accounts == [1] and run.exists("report.html")


def test_a_wrong_tracking_uri_is_found_before_anything_is_written(drawing_spec: Path, tmp_path: Path) -> None:
    assert start_sweep(drawing_spec, tmp_path, MLFLOW_TRACKING_URI="localhost:5000").wait(120) == 2
    line = only_line(tmp_path)
    assert line.startswith("MLFLOW_TRACKING_URI: 'localhost:5000' is not allowed: http://HOST:PORT")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    assert start_sweep(drawing_spec, tmp_path, **away).wait(120) == 1
    line = only_line(tmp_path)
    assert line.startswith("MLFLOW_TRACKING_URI: MLflow at http://127.0.0.1:1: ") and line.endswith("nothing was begun")
    assert {path.name for path in tmp_path.iterdir()} == {"output.txt"}


def test_killed_and_started_again_it_draws_and_decides_as_if_undisturbed(
    undisturbed: Path, drawing_spec: Path, tmp_path: Path
) -> None:
    # with its decision: one that was cut off before is made, and printed, by the next start
    def decided(records: dict[str, Any]) -> bool:
        return any("decision" in rung for rung in records.get(FIRST, {"rungs": ()})["rungs"])

    def second_ended(records: dict[str, Any]) -> bool:
        return records.get(SECOND, {"status": "running"})["status"] != "running"

    kill_when(drawing_spec, tmp_path, decided)
    output = kill_when(drawing_spec, tmp_path, second_ended)
    assert "0 of 4 trials reused, 1 go on from their last checkpoint" in output and FIRST in output
    assert not any(FIRST in line and " 32 images" in line for line in output.splitlines()), output
    left = trials(tmp_path)
    ended = [name for name, record in left.items() if record["status"] != "running"]
    assert ended[:2] == [FIRST, SECOND] and len(left) < 4  # the last one is not drawn yet

    assert start_sweep(drawing_spec, tmp_path).wait(400) == 0, printed(tmp_path)
    output, restored = printed(tmp_path), trials(tmp_path)
    assert f"{len(ended)} of 4 trials reused" in output
    for name in ended:
        assert not any(name in line and " images" in line for line in output.splitlines()), output
        assert restored[name] == left[name]

    expected = trials(undisturbed)
    assert list(restored) == list(expected)
    compared = ("choices", "loss", "student", "teacher", "seed", "status", "images_seen", "weights_digest")
    for trial_id, record in expected.items():
        assert {field: restored[trial_id][field] for field in compared} == {field: record[field] for field in compared}
        for ours, theirs in zip(restored[trial_id]["rungs"], record["rungs"], strict=True):
            assert ours["decision"] == theirs["decision"] and ours["points"] == theirs["points"]


def kill_when(spec: Path, folder: Path, reached: Callable[[dict[str, Any]], bool]) -> str:
    """Starts the sweep, and ends its driver by SIGKILL as soon as its trials are there. Returns what it printed."""
    process = start_sweep(spec, folder)
    deadline = time.monotonic() + 400
    while not reached(trials(folder)):
        assert process.poll() is None and time.monotonic() < deadline, printed(folder)
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    return printed(folder)
