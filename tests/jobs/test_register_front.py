"""Registering a run folder later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.register_front import main
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import FRONT, Front
from orchestrator.sweep.run_folder.inputs import sweep_id
from testing.records import record, rung, write
from tests.registry.conftest import database, empty_database, uri  # noqa: F401
from tests.registry.somebody import Somebody

INPUTS = {"photographs": {"train": ["1" * 64], "validation": ["2" * 64]}}


def test_a_run_folder_is_registered_once_with_its_report(
    tmp_path: Path,
    uri: str,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Somebody(tmp_path, uri, sweep_id(INPUTS))  # type: ignore[arg-type]
    student = one.student("01-a", b"weights")
    one.run.replace("inputs.json", json.dumps(INPUTS).encode())
    one.run.replace("report.html", b"<html>")
    one.run.replace("spec.yaml", b"name: of another version\n")
    write(one.run, record("01-a", [rung(512, -1.0)], status="finished", weights_digest=student.weights_digest))
    assert main([str(one.run.folder), "--tracking-uri", uri]) == 0  # not finished: trials alone
    assert len(one.runs()) == 1 and one.client.search_model_versions("") == []
    write_file(one.run, FRONT, Front(students=(student,)))
    for registered in (1, 0):
        assert main([str(one.run.folder), "--tracking-uri", uri]) == 0
        assert f"registry: {registered} versions of {one.registry.model} registered" in capsys.readouterr().out
    (version,) = one.client.search_model_versions("")
    front = read_file(one.run, FRONT, Front)
    assert front is not None and front.students[0].version == str(version.version)
    (run,) = one.runs()
    parent = run.data.tags["mlflow.parentRunId"]
    assert {file.path for file in one.client.list_artifacts(parent)} == {"report.html", "spec.yaml"}
    assert sorted(data.dataset.name for data in run.inputs.dataset_inputs) == ["train", "validation"]


def test_a_folder_that_is_none_and_an_mlflow_that_is_none_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("no run folder of a sweep: it has no inputs.json\n")
    (tmp_path / "inputs.json").write_text(json.dumps(INPUTS))
    assert main([str(tmp_path), "--tracking-uri", "localhost:5000"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
