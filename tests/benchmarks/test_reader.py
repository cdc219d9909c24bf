"""The readers' benchmark still runs, on two revisions of which one is this one; no figure is held to anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cache import reader

pytestmark = pytest.mark.slow  # a worktree, and processes of two revisions


def test_two_revisions_take_turns(tmp_path: Path) -> None:
    words = ["--before", "HEAD", "--rounds", "1", "--crops", "40", "--size", "64"]
    assert reader.main([*words, "--work", str(tmp_path / "work"), "--results", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "reader.json").read_text())
    assert list(written)[-1] == "goals" and {goal["at"] for goal in written["goals"].values()} == {"least", "most"}
    (measured,) = written["rounds"]
    assert all(figures["crops_a_cpu_s"] > 0 for figures in measured.values())
    read = {name: figures["read_bytes"] for name, figures in measured.items()}
    assert read["prim-l1, before"] == read["prim-l1, stored"] > read["prim-l1, decoded"] == 0
    ratio = measured["feds, stored"]["crops_a_cpu_s"] / measured["feds, before"]["crops_a_cpu_s"]
    assert written["ratios"]["feds on file://, stored over before"]["values"] == [ratio]
    assert not (tmp_path / "work" / "before").exists()
