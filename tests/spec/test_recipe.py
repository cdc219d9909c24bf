"""A teacher's recipe: what it refuses, each in the one line that names field, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.recipe import Recipe

REFUSED = {
    "images=30": "images: 30 is not allowed: a multiple of training.batch_size, 4",
    "checkpoint_every=6": "checkpoint_every: 6 is not allowed: a multiple of training.batch_size, 4",
    "training.ranks_per_trial=3": "training.batch_size: 4 is not allowed: a multiple of training.ranks_per_trial, 3",
    "training.gpus_per_rank=1": "training.gpus_per_rank: 1.0 is not allowed: "
    "0 in a recipe, whose ranks take a GPU each if there are any",
    "training.precision=auto": "training.precision: 'auto' is not allowed: fp32 or bf16 in a recipe",
    "rate_ladder.lambdas=[0.2, 0.1]": "rate_ladder.lambdas: [0.2, 0.1] is not allowed: "
    "numbers above 0, each greater than the one before",
    "rate_ladder={distortion: ms-ssim, lambdas: [2.4, 4.58, 8.73, 16.64]}": "crops.size: 64 is not allowed: "
    "at least 161 for rate_ladder.distortion ms-ssim",
    "network={family: feds-student, N: 8, M: 4}": "network.M: 4 is not allowed: "
    "at least 5 for feds-student, one for each group of channels",
    "stage_one_share=2": "stage_one_share: 2 is not allowed: a finite number of at least 0 and of at most 1",
    "store_dtype=fp8": "store_dtype: 'fp8' is not allowed: fp16 or fp32",
    "name=a/b": "name: 'a/b' is not allowed: "
    "at most 100 letters, digits, dots, underscores and hyphens, the first a letter or digit",
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    data = {
        "name": "tiny",
        "network": {"family": "hyperprior", "N": 8, "M": 12},
        "photographs": {"train": "train", "validation": "/held-out"},
        "crops": {"size": 64},
        "training": {"batch_size": 4, "ranks_per_trial": 2, "learning_rate": 1e-3},
        "images": 32,
        "checkpoint_every": 16,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(("override", "line"), REFUSED.items(), ids=REFUSED)
def test_what_a_recipe_refuses_is_one_line(recipe: Path, override: str, line: str) -> None:
    load_spec(recipe, model=Recipe)
    with pytest.raises(SpecError) as raised:
        load_spec(recipe, [override], model=Recipe)
    assert str(raised.value) == f"{recipe}: {line}"


def test_a_recipes_paths_are_made_absolute_and_looked_for(recipe: Path, tmp_path: Path) -> None:
    resolved = load_spec(recipe, ["init=own.safetensors"], model=Recipe).resolved(tmp_path)
    assert (resolved.photographs.train, resolved.photographs.validation) == (str(tmp_path / "train"), "/held-out")
    assert (resolved.init, resolved.results) == (str(tmp_path / "own.safetensors"), str(tmp_path / "runs/teachers"))
    with pytest.raises(SpecError) as raised:
        resolved.check_paths()
    assert raised.value.problems == (
        f"photographs.train: '{tmp_path / 'train'}' is not allowed: a folder that exists",
        "photographs.validation: '/held-out' is not allowed: a folder that exists",
        f"init: '{tmp_path / 'own.safetensors'}' is not allowed: random or a file that exists",
    )
    there = load_spec(recipe, [f"photographs={{train: {tmp_path}, validation: {tmp_path}}}"], model=Recipe)
    there.resolved(tmp_path).check_paths()
    copy = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/runs"
    with pytest.raises(SpecError, match=f"^results: '{copy}' is not allowed: a folder that stays"):
        there.resolved(tmp_path).model_copy(update={"results": copy}).check_paths()


@pytest.mark.parametrize(("given", "ranks"), [("null", 2), ("1", 1), ("4", 4)])
def test_a_recipe_that_leaves_its_ranks_open_has_two(recipe: Path, tmp_path: Path, given: str, ranks: int) -> None:
    training = load_spec(recipe, [f"training.ranks_per_trial={given}"], model=Recipe).resolved(tmp_path).training
    assert (training.ranks, training.gpus) == (ranks, 0.0)
    odd = load_spec(recipe, ["training={batch_size: 1, ranks_per_trial: null}"], model=Recipe)
    assert odd.resolved(tmp_path).training.ranks == 1  # two could not share it
