"""What the README names exists, and what it shows is accepted."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.spec.load import load_spec
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.spec import Spec

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("   #")[0]
    for block in re.findall(r"(?:^    .*\n)+", README, flags=re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_file_tree_names_files_that_exist() -> None:
    folder, room, missing = "", "", []
    for line in README.partition("## What is where")[2].splitlines():
        if top := re.match(r"(\w+/)(?: |$)", line):
            folder = top[1]
        if inner := re.match(r"  (\w+/) ", line):
            room = inner[1]
        for name in re.findall(r"(?<![\w./])(?:[\w./]+/(?= )|[\w./]+\.(?:py|toml|txt)|Makefile|\.ci/run)", line):
            if not any((ROOT / place / name).exists() for place in ("", folder, folder + room)):
                missing.append(name)
    assert missing == []


def test_every_section_of_the_specification_is_explained() -> None:
    table = README.partition("| section |")[2].partition("\n\n")[0]
    first_cells = " ".join(row.split("|")[1] for row in table.splitlines()[2:])
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(Spec.model_fields)


@pytest.mark.parametrize("command", [line.strip() for line in COMMANDS if "--set" in line or "sweep_feds" in line])
def test_the_overrides_shown_are_accepted(command: str) -> None:
    words = shlex.split(command)
    words = [part for word in words for part in (shlex.split(word[5:]) if word.startswith("ARGS=") else [word])]
    overrides = [value.replace("$PWD", str(ROOT)) for flag, value in itertools.pairwise(words) if flag == "--set"]
    given = [words[i + 1] for i, word in enumerate(words) if word in ("--spec", "--recipe")] or [
        "jobs/specs/quickstart.yaml"
    ]
    load_spec(ROOT / given[0], overrides, model=Recipe if "--recipe" in words else Spec)
    assert overrides


def test_commands_are_found() -> None:
    assert len([line for line in COMMANDS if "--set" in line]) >= 4


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As from a terminal: the `make test` that runs these tests would pass its own settings on."""
    terminal = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *words], cwd=folder, env=terminal, capture_output=True, text=True, check=False)


def test_make_alone_says_what_there_is() -> None:
    made = make(ROOT)
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert (made.returncode, made.stderr) == (0, "")
    shown = [line.split() for line in made.stdout.splitlines()[:-1]]
    assert sorted(words[1] for words in shown) == sorted(targets) and {words[0] for words in shown} == {"make"}


PIP = """#!/bin/bash
echo "  Downloading torch-2.whl (900.1 MB)"
echo "  Downloading a-small-one.whl (9 kB)"
echo "WARNING: something nobody can do anything about" >&2
[ -e fails ] || exit 0
echo "ERROR: No space left on device" >&2
exit 1
"""


def test_set_up_shows_progress_and_keeps_pip_s_log(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP)
    python.chmod(0o755)
    (tmp_path / "fails").touch()
    failed = make(tmp_path, "setup")
    assert failed.returncode == 2
    line = failed.stderr.splitlines()[0]
    assert line == "set-up: failed: ERROR: No space left on device; pip's log: .venv/setup.log"
    (tmp_path / "fails").unlink()
    done = make(tmp_path, "setup")
    assert done.returncode == 0 and done.stderr == ""
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == [
        "set-up: installing the pinned packages",
        "set-up: downloading torch-2.whl (900.1 MB)",
        "set-up: done",
    ]
    assert "WARNING: something" in (tmp_path / ".venv" / "setup.log").read_text()


@pytest.mark.parametrize("target", ["setup", "sweep", "test", "test-all", "test-fast", "check"])
def test_make_has_the_target(target: str) -> None:
    assert make(ROOT, "--dry-run", target).returncode == 0
