"""A ladder trained on photographs: by torchrun, under Ray Train, cut off and started again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.train_teacher import main
from models.weights import load_ladder, read_metadata

pytestmark = pytest.mark.slow  # trains under torchrun and under Ray

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "jobs" / "train_teacher.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", JOB)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    photographs = {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")}
    data = {
        "name": "tiny",
        "network": {"family": "mean-scale", "N": 8, "M": 12},
        "photographs": photographs,
        "crops": {"size": 64},
        "training": {"batch_size": 4, "ranks_per_trial": 2, "learning_rate": 1e-3},
        "images": 32,
        "checkpoint_every": 16,
        "results": str(tmp_path / "teachers"),
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run(command: tuple[str, ...], recipe: Path, *more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RANK", "WORLD_"))}
    return subprocess.run(
        [*command, "--recipe", str(recipe), *more],
        capture_output=True,
        text=True,
        cwd=recipe.parent,
        env=kept | {"OMP_NUM_THREADS": "1"},
        timeout=400,
        check=False,
    )


def rows(recipe: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (recipe.parent / "teachers/tiny/log.jsonl").read_text().splitlines()]


def test_torchrun_trains_and_goes_on_where_it_was(recipe):
    half = run(TORCHRUN, recipe, "--set", "images=16")
    assert half.returncode == 0, half.stdout + half.stderr
    assert [row["images_seen"] for row in rows(recipe)] == [16]
    whole = run(TORCHRUN, recipe)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "goes on from checkpoint-16" in whole.stdout
    assert [row["images_seen"] for row in rows(recipe)] == [16, 32]
    assert all(len(row["points"]) == 5 for row in rows(recipe))
    weights = recipe.parent / "teachers/tiny/tiny.safetensors"
    assert (load_ladder(weights).family, read_metadata(weights).notes["images_seen"]) == ("mean-scale", "32")
    assert sorted(path.name for path in weights.parent.glob("checkpoint-*")) == ["checkpoint-32"]


def test_ray_train_trains_the_same_ladder(recipe):
    done = run((sys.executable, JOB), recipe, "--set", "images=16")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["images_seen"] for row in rows(recipe)] == [16]
    assert load_ladder(recipe.parent / "teachers/tiny/tiny.safetensors").N == 8


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("images=30", "images: 30 is not allowed: a multiple of training.batch_size, 4"),
        ("network.family=elic", "network.family: 'elic' is not allowed: hyperprior, mean-scale, feds-teacher"),
        ("init=nowhere.safetensors", "is not allowed: random or a file that exists"),
        ("photographs.train=nowhere", "is not allowed: a folder that exists"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_one_line(recipe, monkeypatch, capfd, override, line):
    monkeypatch.chdir(recipe.parent)
    assert main(["--recipe", str(recipe), "--set", override]) == 2
    output, errors = capfd.readouterr()
    assert output == "" and line in errors and len(errors.splitlines()) == 1
    assert not (recipe.parent / "teachers").exists()


def test_a_process_with_a_bad_recipe_prints_one_line_and_nothing_else(recipe):
    done = run((sys.executable, JOB), recipe, "--set", "images=30")
    assert done.returncode == 2 and "images: 30 is not allowed" in done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
