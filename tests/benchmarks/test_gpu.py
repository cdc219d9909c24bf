"""`benchmarks/gpu.py`: what it sums up, and that a measurement which fails or hangs ends no other one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.common.packed import TooLong
from benchmarks.common.packed_data import Task

TASK = Task(device="cpu", family="hyperprior", N=16, batch=2, side=64, seconds=1.0, precision="fp32")


def answer(crops_per_s: float) -> dict[str, Any]:
    return {"crops_per_s": crops_per_s, "step_ms": 10.0, "waited_share": 0.1, "memory_bytes": 5, "parameters": 600_000}


class Pool:
    """Answers, or raises what is next."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def run(self, tasks: Any, limit_s: float, at_start: Any = None) -> list[dict[str, Any]]:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return [result] * len(tasks)

    def close(self) -> None: ...


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu.Bench:
    monkeypatch.setattr(gpu, "Pool", lambda device, count: Pool())
    options = argparse.Namespace(
        device="cpu", packed=[1, 2], limit_s=100.0, start_s=1.0, results=str(tmp_path), name="gpu", N=[16]
    )
    return gpu.Bench(options)


def written(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "gpu.json").read_text())


def test_what_fails_is_named_and_the_rest_is_kept(bench: gpu.Bench, tmp_path: Path) -> None:
    bench.pool = Pool(answer(30.0), TooLong("ran past its time"), RuntimeError("ValueError: no"), answer(20.0))  # type: ignore[assignment]
    for processes in (1, 2, 4, 8):
        bench.measure("packed", TASK, processes)
        assert len(written(tmp_path)["measured"] + written(tmp_path)["left_out"]) in (1, 2, 3, 4)
    found = written(tmp_path)
    assert [(row["processes"], row["crops_per_s"]) for row in found["measured"]] == [(1, 30.0), (8, 160.0)]
    assert [row["why"] for row in found["left_out"]] == ["ran past its time", "ValueError: no"]
    assert found["rehearsal"] is True and "rehearsal" in found["what"]
    assert found["goals"] == {"packed_8_over_1_N16": {"value": 160.0 / 30.0, "goal": 2.0, "at": "least"}}


def test_without_time_nothing_is_begun(bench: gpu.Bench, tmp_path: Path) -> None:
    bench._deadline = 0.0
    bench.measure("packed", TASK)
    assert written(tmp_path)["measured"] == [] and "s were left" in written(tmp_path)["left_out"][0]["why"]


def test_the_card_s_figures_are_those_while_all_trained() -> None:
    summed = gpu.summed([answer(1.0), answer(2.0)], [gpu.Card(50.0, 1000.0, 2000.0), gpu.Card(70.0, 1200.0, 2000.0)])
    assert (summed["crops_per_s"], summed["card_utilisation_pct"], summed["card_memory_mib"]) == (3.0, 60.0, 1200.0)
    assert gpu.summed([answer(1.0)], [])["card_memory_mib"] is None


def test_packing_is_by_what_one_trial_took_alone() -> None:
    idle = gpu.Card(0.0, 1000.0, 80_000.0)
    rows = [
        {"kind": "packed", "N": 16, "processes": count, "batch": 16, "side": 256, "crops_per_s": speed}
        | {"card_utilisation_pct": 24.0, "card_memory_mib": 4000.0, "parameters": 600_000}
        for count, speed in ((1, 100.0), (2, 180.0), (4, 170.0), (8, 150.0))
    ]
    assert gpu.packing(rows, idle) == {"N=16": {"by_measurement": 4, "by_rule": 8, "fastest": 2}}
    rows[0]["card_memory_mib"] = 40_000.0
    assert gpu.packing(rows, idle)["N=16"]["by_measurement"] == 1
    assert gpu.packing(rows, None) == gpu.packing(rows[1:], idle) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("37, 1024, 2048\n", (37.0, 1024.0, 2048.0)), ("[N/A], 1, 2\n", None), ("1, 2\n", None), ("", None)],
)
def test_nvidia_smi_is_read_where_it_says_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[float, ...] | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.sample() is None  # there is none
    (tmp_path / "out").write_text(text)
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\nwhile read -r line; do echo "$line"; done < {tmp_path / "out"}\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu.sample() == expected
