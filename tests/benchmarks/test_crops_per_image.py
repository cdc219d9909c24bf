"""benchmarks.cache.crops_per_image still runs, from photographs to its result file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cache import crops_per_image
from models.catalogue import build_ladder
from models.weights import save_ladder
from orchestrator.spec.sections import PRIM_LAMBDAS


@pytest.mark.long
def test_it_trains_on_fresh_crops_and_on_cached_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = tmp_path / "student.safetensors"
    save_ladder(student, build_ladder(family="hyperprior", N=8, M=96, lambdas=PRIM_LAMBDAS, kind="variable-rate"))
    small = "--count 4 --validation-crops 2 --images 32 --rungs 1 --seeds 1 --crops-per-image 4 --exact --processes 1"
    folders = ["--student", str(student), "--work", str(tmp_path / "work"), "--results", str(tmp_path)]
    assert crops_per_image.main([*small.split(), *folders]) == 0
    assert {*json.loads((tmp_path / "crops_per_image.json").read_text())["arms"]} == {"fresh", "cached-4"}
