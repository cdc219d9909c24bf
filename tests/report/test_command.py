"""`python -m orchestrator.report`: what it writes, and what it refuses."""

import json
import subprocess
import sys

import pytest

from orchestrator.report.page import main, write_report


def test_a_page_elsewhere_leaves_the_run_folder_alone(run_folder, tmp_path, capsys):
    before = {path: path.stat().st_ctime_ns for path in (run_folder, *run_folder.rglob("*"))}
    assert main([str(run_folder), "--out", str(tmp_path / "page.html")]) == 0
    assert {path: path.stat().st_ctime_ns for path in (run_folder, *run_folder.rglob("*"))} == before
    assert main([str(run_folder), "--out", str(tmp_path / "front.svg")]) == 0
    assert (tmp_path / "front.svg").read_text() in (tmp_path / "page.html").read_text()
    write_report(run_folder)
    assert (tmp_path / "page.html").read_bytes() == (run_folder / "report.html").read_bytes()


@pytest.mark.parametrize("name", ["front.json", "page.png", "page", "spec.yaml"])
def test_a_page_is_never_written_over_another_kind_of_file(run_folder, capsys, name):
    before = {path: path.stat().st_ctime_ns for path in run_folder.rglob("*")}
    assert main([str(run_folder), "--out", str(run_folder / name)]) == 2
    line = f"--out: '{run_folder / name}' is not allowed: a name that ends in .html or .svg\n"
    assert capsys.readouterr().err == line
    assert {path: path.stat().st_ctime_ns for path in run_folder.rglob("*")} == before


def test_a_run_folder_that_cannot_be_written_is_one_line(run_folder, tmp_path, capsys):
    (run_folder / "report.html").unlink(missing_ok=True)
    (run_folder / "report.html").mkdir()
    assert main([str(run_folder)]) == 2
    assert capsys.readouterr().err == f"file://{run_folder}: Is a directory\n"
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_without_a_folder_is_one_line(run_folder, tmp_path):
    command = [sys.executable, "-m", "orchestrator.report"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    line = "python -m orchestrator.report: the following arguments are required: run; --help says what there is\n"
    assert done.stderr == line
    assert main([str(run_folder), "--out", str(tmp_path)]) == 2
    assert subprocess.run([*command, str(run_folder), "--out", str(tmp_path / "a.html")]).returncode == 0


def test_a_text_that_is_none_is_one_line(run_folder, capsys):
    (run_folder / "spec.yaml").write_bytes(b"\xff\xfe")
    assert main([str(run_folder)]) == 2
    assert capsys.readouterr().err == f"file://{run_folder}/spec.yaml: it is not UTF-8 text\n"


def test_a_run_folder_of_another_format_is_one_line(run_folder, capsys):
    assert main([str(run_folder)]) == 0
    (old,) = run_folder.glob("trials/00-*.json")
    content = json.loads(old.read_text())
    del content["format"], content["owners"]
    old.write_text(json.dumps(content | {"lost": False}))
    assert main([str(run_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"file://{old}: no format number, but this version reads format 4: ")


@pytest.mark.parametrize(
    ("name", "number"), [("front.json", 2), ("anchor.json", 1), ("account.json", 1), ("coded/candidates.json", 2)]
)
def test_a_folder_of_an_earlier_version_is_one_line(run_folder, capsys, name, number):
    content = json.loads((run_folder / name).read_text())
    del content["format"]
    (run_folder / name).write_text(json.dumps(content))
    assert main([str(run_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"file://{run_folder}/{name}: no format number, but this version reads format {number}: ")
    assert not (run_folder / "report.html").exists()
