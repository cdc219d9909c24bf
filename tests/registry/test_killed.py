"""Registration that is killed with SIGKILL, at many points, and done again: one version a student, all aliases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.register_front import main
from orchestrator.registry.reach import VARIABLE
from orchestrator.results.bundles import costs_file
from orchestrator.results.files import needed, write_file
from orchestrator.results.front import CANDIDATES, FRONT, Candidates, CodedStudent, Front
from orchestrator.sweep.run_folder.inputs import sweep_id
from testing.records import record, rung, write
from tests.registry.somebody import Somebody
from tests.results.builders import coding_costs

pytestmark = pytest.mark.slow  # processes that import all of MLflow and Ray

ROOT = Path(__file__).parents[2]
INPUTS = {"photographs": {"train": ["1" * 64], "validation": ["2" * 64]}}


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Somebody:
    """A run folder with two students on its front; MLflow is its own database."""
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "quick").mkdir()
    one = Somebody(tmp_path, None, sweep_id(INPUTS))  # type: ignore[arg-type]
    students = [
        one.student(name, content).model_copy(update=macs)
        for name, content, macs in (
            ("01-a", b"first", {"bd_rate_pct": 9.0}),
            ("02-b", b"second", {"bd_rate_pct": 1.0, "macs_per_pixel": 900.0, "decoder_macs_per_pixel": 700.0}),
        )
    ]
    one.run.replace("inputs.json", json.dumps(INPUTS).encode())
    one.run.replace("spec.yaml", b"name: of another version\n")
    one.run.replace("report.html", b"<html>")
    for student in students:
        trial = record(student.trial_id, [rung(512, -1.0)], status="finished", weights_digest=student.weights_digest)
        write(one.run, trial)
        write_file(one.run, costs_file(student.trial_id, student.weights_digest), coding_costs())
    write_file(one.run, CANDIDATES, Candidates(students=tuple(students)))
    write_file(one.run, FRONT, Front(students=tuple(students)))
    return one


def killed(run: Path, step: str, time: int) -> None:
    """Registers in a process of its own, which is killed."""
    command = [sys.executable, "-m", "tests.registry.killed", str(run), step, str(time)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def assert_all_is_there_once(one: Somebody, to: Path) -> None:
    students = needed(one.run, FRONT, Front).students
    versions = {version.tags["trial_id"]: version for version in one.client.search_model_versions("")}
    assert len(one.client.search_model_versions("")) == len(versions) == 2
    assert [student.version for student in students] == [str(versions[name].version) for name in ("01-a", "02-b")]
    first, second = (str(versions[name].version) for name in ("01-a", "02-b"))
    aliases = {name: str(to) for name, to in one.client.get_registered_model(one.registry.model).aliases.items()}
    assert aliases == {
        f"01-a-{students[0].weights_digest[:12]}": first,
        f"02-b-{students[1].weights_digest[:12]}": second,
        "best-bd-rate": second,
        "fastest": first,
        "balanced": aliases["balanced"],  # equally near: either
        "encoder-smallest": second,
        "decoder-smallest": first,
    }
    assert aliases["balanced"] in (first, second)
    runs = {run.data.tags["trial_id"]: run for run in one.runs()}
    assert len(one.runs()) == len(runs) == 2 and {run.info.status for run in runs.values()} == {"FINISHED"}
    for student in students:
        version = versions[student.trial_id]
        assert version.run_id == runs[student.trial_id].info.run_id and version.description.startswith("# 0")
        for metric in ("estimated_bd_rate_pct", "coded_bd_rate_pct", "bundle_decode_ms_per_megapixel"):
            assert len(one.client.get_metric_history(version.run_id, metric)) == 1
        assert_has_all_files(one.client, version.run_id, student, to / student.trial_id)
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    assert {file.path for file in one.client.list_artifacts(parent)} == {"report.html", "spec.yaml"}


def assert_has_all_files(client: MlflowClient, run_id: str, student: CodedStudent, to: Path) -> None:
    to.mkdir()
    folder = f"model-{student.weights_digest[:12]}"
    found = Path(client.download_artifacts(run_id, folder, str(to)))
    content = {path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()}
    weights = content["artifacts/weights.safetensors"]
    assert content["artifacts/bundle/entropy.npz"] == weights in (b"first", b"second")
    assert json.loads(content["artifacts/bundle/codec.json"]) and content["MLmodel"] and content["README.md"]


@pytest.mark.parametrize(
    ("step", "time"),
    [
        ("copyfile", 1),  # a part of the first version's files
        ("create_model_version", 1),  # a version without an alias
        ("set_registered_model_alias", 4),  # some of the front's
        pytest.param("create_run", 2, marks=pytest.mark.long),  # the sweep's, and the first trial's without metrics
        pytest.param("log_batch", 1, marks=pytest.mark.long),  # its metrics, but not its tags
        pytest.param("log_artifacts", 1, marks=pytest.mark.long),  # all of them, but no version
        pytest.param("set_registered_model_alias", 1, marks=pytest.mark.long),  # with its own alias
        # all, and their numbers in front.json, but the report is not
        pytest.param("write_file", 2, marks=pytest.mark.long),
    ],
)
def test_killed_and_done_again_there_is_one_version_a_student(
    one: Somebody, tmp_path: Path, step: str, time: int
) -> None:
    killed(one.folder / "quick", step, time)
    assert main([str(one.run.folder)]) == 0
    assert_all_is_there_once(one, tmp_path)


@pytest.mark.parametrize("time", [1, 20])
def test_killed_while_the_tables_are_made_the_database_is_made_again(one: Somebody, tmp_path: Path, time: int) -> None:
    copied = tmp_path / "copied/quick"  # MLflow keeps this process's own database open
    shutil.copytree(tmp_path / "quick", copied, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    killed(copied, "update_to_step", time)
    assert not (copied / "mlflow.db").exists()
    assert main([str(copied)]) == 0
    assert_all_is_there_once(Somebody(copied.parent, None, sweep_id(INPUTS)), tmp_path)  # type: ignore[arg-type]


def test_killed_while_it_makes_up_for_lost_files_they_are_not_taken_for_whole(one: Somebody, tmp_path: Path) -> None:
    assert main([str(one.run.folder)]) == 0
    for bundle in (tmp_path / "quick/mlartifacts").rglob("bundle"):
        shutil.rmtree(bundle)
    killed(one.folder / "quick", "copyfile", 1)
    assert main([str(one.run.folder)]) == 0
    assert_all_is_there_once(one, tmp_path)


def test_killed_again_and_again_it_comes_to_the_same(one: Somebody, tmp_path: Path) -> None:
    for step, time in (("create_run", 1), ("create_model_version", 1), ("create_model_version", 1), ("write_file", 1)):
        killed(one.folder / "quick", step, time)
    assert main([str(one.run.folder)]) == 0
    assert_all_is_there_once(one, tmp_path)
