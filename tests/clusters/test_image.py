"""The image's Dockerfile, and the hook that pods run from it. Images cannot be built here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusters.kubernetes import leave
from clusters.kubernetes.pods import REPOSITORY, USER
from tests.clusters.descriptions import ROOT

DOCKERFILE = ROOT / "clusters" / "kubernetes" / "Dockerfile"


def test_the_dockerfile_is_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.exists(), "hadolint is missing: make setup-test"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_dockerfile_and_the_pods_agree() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert f"WORKDIR {REPOSITORY}\n" in text
    assert f"USER {USER}:{USER}\n" in text
    assert (ROOT / "clusters" / "kubernetes" / "leave.py").is_file()


@contextmanager
def sweep(repository: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """A process that looks like a sweep of a repository and has said that it listens; killed in the end."""
    (repository / "jobs").mkdir(parents=True, exist_ok=True)
    (repository / leave.DRIVER.decode()).write_text(program)
    command = [sys.executable, leave.DRIVER.decode()]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""
HANGS = (
    'import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint("ready", flush=True)\ntime.sleep(60)\n'
)


def test_the_hook_waits_until_the_sweep_has_saved(tmp_path: Path) -> None:
    """It leaves sweeps of other repositories alone."""
    with sweep(tmp_path / "ours", SAVES) as ours, sweep(tmp_path / "theirs", SAVES) as theirs:
        began = time.monotonic()
        leave.main(30, told_s=0, repository=(tmp_path / "ours").resolve())
        assert 1 <= time.monotonic() - began < 20
        assert ours.wait(timeout=10) == 75 and theirs.poll() is None


def test_the_hook_goes_when_its_time_is_over(tmp_path: Path) -> None:
    with sweep(tmp_path, HANGS) as process:
        began = time.monotonic()
        leave.main(1.5, told_s=0, repository=tmp_path.resolve())
        assert 1.5 <= time.monotonic() - began < 10 and process.poll() is None


def test_the_hook_of_a_pod_without_a_sweep_ends_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    leave.main(30, repository=tmp_path)
    assert time.monotonic() - began < 5
