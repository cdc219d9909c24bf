"""A run folder whose trials' files have no format: one line by the sweep and by the report; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.sweep_feds import main as sweep
from orchestrator.report.page import main as report

# as trials were written then, without a number; today that is format 1
OLD: dict[str, Any] = {
    "trial_id": "01-hyperprior-n64-control",
    "student": {"family": "hyperprior", "N": 64, "M": 96, "Z": None, "init": "random"},
    "teacher": None,
    "loss": {},
    "seed": 0,
    "choices": {},
    "complexity_class": "hyperprior-n64-m96",
    "params": 10,
    "macs_per_pixel": 2.0,
    "encoder_macs_per_pixel": 1.0,
    "decoder_macs_per_pixel": 1.0,
    "status": "running",
    "error": None,
    "lost": False,
    "images_seen": 8,
    "rungs": [
        {
            "images_seen": 8,
            "points": [{"rate_point": 0, "lmbda": 0.0018, "bpp": 0.1, "mse": 0.001, "psnr_db": 30.0}],
            "bd_rate_pct": None,
            "bd_rate_reason": "too-few-points: test: 1 points, 4 needed",
            "log_lagrangian_ratio": 0.1,
            "decision": {"action": "continue", "sequence": 0},
        }
    ],
    "checkpoint": {"images_seen": 8, "path": "checkpoints/01-hyperprior-n64-control/8-0123", "files": {}},
    "weights": "weights/01-hyperprior-n64-control.safetensors",
    "weights_digest": "0",
}


def test_an_old_run_folder_is_refused_in_one_line(
    tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "tiny"
    old = run / "trials" / f"{OLD['trial_id']}.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps(OLD))
    places = ["--set", f"results={tmp_path / 'runs'}", "--set", f"store={tmp_path / 'store'}"]
    for command in (lambda: sweep(["--spec", str(tiny_spec), *places]), lambda: report([str(run)])):
        assert command() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"file://{old}: no format number, but this version reads format 4: "
            "go on with the version that wrote it (versions.json names it), or give the sweep another name"
        )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [old]
