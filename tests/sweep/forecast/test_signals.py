"""`--plan` told to end while it measures: it cleans up, and says one line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, sweep_command

pytestmark = pytest.mark.slow


def planning(spec: Path, folder: Path, *, after: str) -> subprocess.Popen[str]:
    """A `--plan` that has begun to write beside the run folder, and has said a line that begins so."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*sweep_command(spec, folder), "--plan"],
            cwd=ROOT,
            env=environment | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    while process.poll() is None:
        if after in (folder / "output.txt").read_text() and [*folder.glob("runs/.plan-*/*")]:
            return process
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("sent", "code", "line"),
    [
        (signal.SIGTERM, 75, "preempted: nothing was being trained; the same command goes on\n"),
        (signal.SIGINT, 130, "interrupted\n"),
    ],
)
def test_a_plan_that_is_told_to_end_leaves_nothing(
    tiny_spec: Path, tmp_path: Path, sent: signal.Signals, code: int, line: str
) -> None:
    process = planning(tiny_spec, tmp_path, after="calibration: features")
    process.send_signal(sent)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (code, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "output.txt"]


def test_a_second_signal_does_not_disturb_the_clean_up(tiny_spec: Path, tmp_path: Path) -> None:
    process = planning(tiny_spec, tmp_path, after="ranks")
    for _ in range(3):  # at once: while Ray shuts down it gives SIGTERM its default action back, beyond our reach
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (75, "preempted: nothing was being trained; the same command goes on\n")
    assert not (tmp_path / "runs").exists()
