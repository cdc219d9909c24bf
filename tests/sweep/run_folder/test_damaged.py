"""A run folder whose files are cut off or foreign, and places that are no folders: one line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cache_features import main as cache_features
from jobs.sweep_feds import main as sweep
from orchestrator.report.page import main as report
from testing.servers import SeaweedFS

CUT_OFF = "no JSON, or cut off: "
NO_FORMAT = "no format number, but this version reads format 1"
DAMAGED = {
    "an account that is cut off": ("account.json", '{"format": 1, "finished": true, "wall_s": 4', CUT_OFF),
    "a foreign account": ("account.json", '{"customer": "a", "balance": 7}', NO_FORMAT),
    "an account that is a list": ("account.json", "[1]", NO_FORMAT),
    "an account in another encoding": ("account.json", "\udcff\udcfe{", CUT_OFF),
    "an account without fields": ("account.json", '{"format": 1}', "finished: Field required, in a file of format 1"),
    "inputs that are cut off": ("inputs.json", '{"name": "tin', CUT_OFF),
    "foreign inputs": ("inputs.json", '["name"]', "['name'] is not a sweep's inputs: "),
    "empty inputs": ("inputs.json", "", CUT_OFF),
    "no inputs": ("inputs.json", "null", "nothing is not a sweep's inputs: "),
    "an anchor that is cut off": ("anchor.json", '{"format": 1, "anc', CUT_OFF),
    "a trial that is cut off": ("trials/1.json", '{"format": 2', CUT_OFF),
    "inputs without end": ("inputs.json", "[" * 100_000, f"{CUT_OFF}nested too deep"),
}


def places(folder: Path) -> list[str]:
    return ["--set", f"results={folder / 'runs'}", "--set", f"store={folder / 'store'}"]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_file_is_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    name, text, line = DAMAGED[damaged]
    file = tmp_path / "runs" / "tiny" / name
    file.parent.mkdir(parents=True)
    file.write_text(text, errors="surrogateescape")
    assert sweep(["--spec", str(tiny_spec), *places(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"file://{file}: {line}") and captured.err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("field", ["results", "store"])
@pytest.mark.parametrize("inside", ["", "/deeper/still"])
def test_a_place_that_is_a_file_is_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, inside: str
) -> None:
    file = tmp_path / "a file"
    file.touch()
    given = [*places(tmp_path), "--set", f"{field}={file}{inside}"]
    line = f"{field}: '{file}{inside}' is not allowed: a folder, and {file} is none\n"
    for command in (sweep, lambda words: sweep([*words, "--plan"]), cache_features):
        assert command(["--spec", str(tiny_spec), *given]) == 2
        assert capsys.readouterr().err == line
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("field", ["results", "store"])
def test_a_place_that_takes_no_file_is_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    """Permissions do not tell, least of all to root: /proc takes no folder of anybody's."""
    given = [*places(tmp_path), "--set", f"{field}=/proc/a/b"]
    line = f"{field}: '/proc/a/b' is not allowed: a folder that can be written, and /proc cannot: "
    for command in (sweep, lambda words: sweep([*words, "--plan"]), cache_features):
        assert command(["--spec", str(tiny_spec), *given]) == 2
        output, errors = capsys.readouterr()
        assert output == "" and errors.startswith(line) and errors.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_a_run_folder_that_is_a_file_is_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs" / "tiny"
    file.parent.mkdir()
    file.touch()
    assert sweep(["--spec", str(tiny_spec), *places(tmp_path)]) == 2
    assert capsys.readouterr().err == f"name: 'tiny' is not allowed: a folder, and {file} is none\n"


@pytest.mark.parametrize("name", ["inputs.json", "spec.yaml", "versions.json", "account.json", "sweep.log"])
def test_a_folder_where_a_file_goes_is_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "runs" / "tiny" / name
    folder.mkdir(parents=True)
    assert sweep(["--spec", str(tiny_spec), *places(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert errors == f"file://{folder}: a folder, where a file goes: give this one another name\n"
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs", folder.parent, folder]


def test_a_store_on_s3_is_tried_before_any_work(
    tiny_spec: Path,
    tmp_path: Path,
    s3_server: SeaweedFS,
    s3_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    given = [*places(tmp_path), "--set", f"store=s3://{s3_server.bucket}/x"]
    for command in (sweep, lambda words: sweep([*words, "--plan"]), cache_features):
        assert command(["--spec", str(tiny_spec), *given]) == 1
        output, errors = capsys.readouterr()
        assert errors.startswith(f"s3://{s3_server.bucket}/x: access denied") and errors.count("\n") == 1
        assert all(line.startswith("photographs.") for line in output.splitlines())
    assert [*tmp_path.iterdir()] == []


def test_the_report_of_what_is_no_run_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a file"
    file.touch()
    for run in (str(file), str(tmp_path), f"{tmp_path}/none", "a\0b", "s3://", "gs://bucket"):
        assert report([run]) == 2
        assert capsys.readouterr().err.count("\n") == 1
