"""A benchmark's command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.common.command import count, exit_code
from models.weights import read_metadata
from orchestrator.photographs.survey import survey
from orchestrator.spec.load import load_spec


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_count_is_at_least_one(text: str) -> None:
    assert count("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="is not allowed: a whole number of at least 1"):
        count(text)


def _done(act: Callable[[], object]) -> int:
    act()
    return 0


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    acts: tuple[Callable[[], object], ...] = (
        nowhere.read_bytes,
        lambda: survey(nowhere, minimum_side=1),
        lambda: load_spec(nowhere),
        lambda: read_metadata(nowhere),
    )
    for act in acts:
        assert exit_code(partial(_done, act)) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"{nowhere}: ") and errors.count("\n") == 1


@pytest.mark.slow  # starts one
def test_a_process_that_failed_has_said_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: subprocess.check_call([sys.executable, "-c", "raise SystemExit(3)"])) == 3
    assert capsys.readouterr().err == ""
