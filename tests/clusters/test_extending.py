"""The launcher of docs/extending.md works as it stands there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from clusters.backend import LaunchError
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.spec import Spec
from testing.examples import examples
from tests.clusters.descriptions import QUICKSTART, cluster, job

SSH = """#!/bin/sh
[ "$1 $2" = "localhost bash -s" ] && grep -q jobs/sweep_feds.py && exit {code}
exit 1
"""


@pytest.fixture
def launcher() -> ModuleType:
    made = ModuleType("clusters.ssh")
    exec(examples("A launcher")["clusters/ssh/__init__.py"], vars(made))
    return made


def test_the_documented_launcher_renders_a_sound_script(launcher: ModuleType) -> None:
    spec: Spec = load_spec(QUICKSTART)
    launcher.check(cluster("ray", "nodes=1"), spec)
    with pytest.raises(SpecError, match="nodes: 2 is not allowed: 1: this launcher knows one machine"):
        launcher.check(cluster("ray", "nodes=2"), spec)
    ((name, text),) = launcher.files(cluster("ray"), job("trials=2")).items()
    assert name == "quickstart.sh" and "--set trials=2" in text
    done = subprocess.run(["shellcheck", "--shell=sh", "-"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_documented_launcher_ends_with_the_sweeps_exit_code(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for code in (0, 75, 255):
        (tmp_path / "ssh").write_text(SSH.format(code=code))
        (tmp_path / "ssh").chmod(0o755)
        if code == 255:
            with pytest.raises(LaunchError, match="cannot be reached"):
                launcher.launch(cluster("ray"), job())
        else:
            assert launcher.launch(cluster("ray"), job()) == code
