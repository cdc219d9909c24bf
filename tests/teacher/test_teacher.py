"""A teacher's run folder before anything is trained: what it was made from, who trains it, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.train_teacher import main
from models.catalogue import SHIPPED
from models.ladder import RateLadder
from models.weights import save_ladder
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.format import FormatError
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.sections import PRIM_LAMBDAS
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder.inputs import open_folder
from orchestrator.sweep.run_folder.records import NotOwner
from orchestrator.teacher.plan import TeacherPlan
from orchestrator.teacher.ranks import _Share
from orchestrator.teacher.record import Check, TeacherRecord, claim, read_record, update, weights_intact
from orchestrator.teacher.run import _of_world

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"
INIT = SHIPPED / "teacher-hyperprior.safetensors"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RANK", raising=False)  # of a process group that other tests joined
    for name, pattern in (("train", "f*.webp"), ("validation", "*.webp")):
        (tmp_path / name).mkdir()
        for path in (QUICKSTART / name).glob(pattern):
            (tmp_path / name / path.name).symlink_to(path)
    shutil.copy(INIT, tmp_path / "init.safetensors")
    data = {
        "name": "tiny",
        "network": {"family": "hyperprior", "N": 8, "M": 12},
        "init": str(tmp_path / "init.safetensors"),
        "photographs": {"train": str(tmp_path / "train"), "validation": str(tmp_path / "validation")},
        "crops": {"size": 64},
        "training": {"batch_size": 4, "ranks_per_trial": 2, "learning_rate": 1e-3},
        "images": 32,
        "checkpoint_every": 16,
        "results": str(tmp_path / "teachers"),
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def planned(recipe: Path, *overrides: str) -> TeacherPlan:
    return TeacherPlan.of(load_spec(recipe, overrides, model=Recipe).resolved(recipe.parent))


def run_folder(recipe: Path) -> Store:
    return Store(recipe.parent / "teachers" / "tiny")


def begin(recipe: Path) -> Store:
    """A run folder as a training of the recipe has begun it."""
    run, plan = run_folder(recipe), planned(recipe)
    open_folder(run, plan.recipe, plan.inputs, "teacher")
    claim(run, "first")
    return run


def files(run: Store) -> dict[str, bytes]:
    return {name: run.read(name) for name in run.list()}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=5", "seed: 5 is not allowed: {} holds a teacher with 0"),
        ("network.N=12", "network.N: 12 is not allowed: {} holds a teacher with 8"),
        (
            "network.family=mean-scale",
            "network.family: 'mean-scale' is not allowed: {} holds a teacher",
        ),
        (
            "rate_ladder.lambdas=[0.001, 0.01, 0.02, 0.03, 0.05]",
            "rate_ladder.lambdas.0: 0.001 is not allowed: {}",
        ),
        ("rate_ladder.lambdas=[0.001, 0.01]", "rate_ladder.lambdas: [0.001, 0.01] is not allowed: {} holds a teacher"),
        ("images=64", "images: 64 is not allowed: {} holds a teacher with 32"),
        ("training.learning_rate=0.01", "training.learning_rate: 0.01 is not allowed: {} holds a teacher with 0.001"),
        ("init=random", "init: 'random' is not allowed: {} holds a teacher with"),
        ("crops.size=128", "crops.size: 128 is not allowed: {} holds a teacher with 64"),
        ("stage_one_share=0", "stage_one_share: 0.0 is not allowed: {} holds a teacher with 0.4"),
    ],
)
def test_another_recipe_under_a_used_name_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], override: str, line: str
) -> None:
    run = begin(recipe)
    before = files(run)
    assert main(["--recipe", str(recipe), "--set", override]) == 2
    error = capsys.readouterr().err
    assert error.startswith(line.format(run.url)) and error.endswith("; give this one another name\n")
    assert len(error.splitlines()) == 1 and files(run) == before


def test_other_photographs_under_a_used_name_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(recipe)
    before = files(run)
    next((recipe.parent / "train").iterdir()).unlink()
    assert main(["--recipe", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("photographs.train: [") and f"is not allowed: {run.url} holds a teacher with [" in error
    assert len(error.splitlines()) == 1 and files(run) == before


def test_other_first_weights_under_a_used_name_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(recipe)
    other = RateLadder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS)
    save_ladder(recipe.parent / "init.safetensors", other)
    assert main(["--recipe", str(recipe)]) == 2
    assert capsys.readouterr().err.startswith("init: '")


def test_what_changes_no_weight_may_change(recipe: Path) -> None:
    for folder in ("train", "validation"):
        (recipe.parent / folder).rename(recipe.parent / f"{folder}-moved")
    shutil.copy(INIT, recipe.parent / "moved.safetensors")
    moved = [f"photographs.{name}={recipe.parent / name}-moved" for name in ("train", "validation")]
    there = planned(recipe, *moved)
    others = ("checkpoint_every=8", "results=s3://bucket/a", "preemption.grace_s=5", "training.micro_batch_size=1")
    changed = planned(recipe, *moved, f"init={recipe.parent / 'moved.safetensors'}", *others)
    assert changed.inputs == there.inputs


@pytest.mark.parametrize("name", ["checkpoint-16/state.pt", "tiny.safetensors", "trials/a.json"])
def test_a_folder_of_something_else_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Such as a teacher of a version before inputs.json."""
    run = run_folder(recipe)
    run.replace(name, b"")
    assert main(["--recipe", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"name: 'tiny' is not allowed: another name, since {run.url} holds no teacher of this version but {name}\n"
    )
    assert files(run) == {name: b""}


@pytest.mark.parametrize("name", ["teacher.json", "spec.yaml", "log.jsonl", "tiny.safetensors"])
def test_a_folder_where_a_file_goes_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = recipe.parent / "teachers" / "tiny" / name
    folder.mkdir(parents=True)
    assert main(["--recipe", str(recipe)]) == 2
    errors = capsys.readouterr().err
    assert errors == f"file://{folder}: a folder, where a file goes: give this one another name\n"
    assert [*folder.parent.rglob("*")] == [folder]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: nothing is not allowed: a whole number, as torchrun sets it"),
        ({"RANK": "x", "WORLD_SIZE": "1"}, "RANK: 'x' is not allowed: a whole number, as torchrun sets it"),
        (
            {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": "1"},
            "MASTER_ADDR: nothing is not allowed: a host, as torchrun sets it",
        ),
    ],
)
def test_half_of_torchruns_environment_is_refused(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    line: str,
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["--recipe", str(recipe)]) == 2
    assert capsys.readouterr().err == f"{line}, or no RANK, to train under Ray\n"


def test_a_run_folder_that_is_a_file_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "teachers").mkdir()
    file = recipe.parent / "teachers" / "tiny"
    file.touch()
    assert main(["--recipe", str(recipe)]) == 2
    assert capsys.readouterr().err == f"name: 'tiny' is not allowed: a folder, and {file} is none\n"


@pytest.mark.parametrize("place", ["/proc/a", "train/f.webp/a"])
def test_results_that_take_no_file_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    (recipe.parent / "train" / "f.webp").touch()
    place = str(recipe.parent / place)
    assert main(["--recipe", str(recipe), "--set", f"results={place}"]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1
    assert errors.startswith(f"results: '{place}' is not allowed: a folder")


def test_the_ranks_train_the_recipes_network(recipe: Path) -> None:
    widths = ("init=random", "network.M=12", "network.Z=10", "network.encoder_N=16")
    share = _Share.__new__(_Share)  # a whole one needs a process group, and trains
    share._recipe = planned(recipe, *widths).recipe
    ladder = share._first_ladder()
    assert (ladder.N, ladder.M, ladder.Z, ladder.encoder_N) == (8, 12, 10, 16)
    assert ladder.lambdas == share._recipe.rate_ladder.lambdas


def test_a_finished_training_is_named_as_such(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(recipe)
    run.replace("tiny.safetensors", INIT.read_bytes())
    digest = "0c" * 32
    assert not weights_intact(run, planned(recipe).recipe, update(run, "first", images_seen=32, weights_sha256=digest))
    digest = hashlib.sha256(INIT.read_bytes()).hexdigest()
    update(run, "first", weights_sha256=digest)
    capsys.readouterr()
    assert main(["--recipe", str(recipe)]) == 0
    train, validation, finished, weights = capsys.readouterr().out.splitlines()
    assert train == f"photographs.train {recipe.parent / 'train'}: 3 used"
    assert validation == f"photographs.validation {recipe.parent / 'validation'}: 6 used"
    assert finished == f"finished before, nothing to do: {run.url}"
    assert weights == f"tiny: {recipe.parent / 'teachers/tiny/tiny.safetensors'}  sha256 {digest}"


def test_only_the_last_owner_changes_the_record(recipe: Path) -> None:
    run = begin(recipe)
    assert update(run, "first", images_seen=16).images_seen == 16
    assert claim(run, "second") == TeacherRecord(owner="second", images_seen=16)
    before = files(run)
    with pytest.raises(NotOwner, match=r"tiny was taken over by another process$"):
        update(run, "first", images_seen=32)
    assert files(run) == before


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    point: dict[str, Any] = {"rate_point": 0, "bpp": 0.5, "psnr_db": 30.0, "mse": 0.001, "lmbda": 0.01}
    check = Check(images_seen=16, losses={"loss": 1.5}, seconds=2.0, points=(CurvePoint(**point),))
    run = Store(tmp_path)
    claim(run, "a")
    written = update(run, "a", images_seen=16, checks=(check,))
    assert read_record(run) == written
    assert written.log() == (
        b'{"images_seen": 16, "loss": 1.5, "seconds": 2.0, "points": [{"rate_point": 0, "bpp": 0.5, "psnr_db": 30.0, '
        b'"mse": 0.001, "lmbda": 0.01}]}\n'
    )
    run.replace("teacher.json", b"{")
    with pytest.raises(FormatError, match=r"teacher\.json: no JSON"):
        read_record(run)


def test_too_few_validation_photographs_are_one_line(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((recipe.parent / "validation").iterdir())[1:]:
        path.unlink()
    assert main(["--recipe", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("validation.crops: 6 boxes of 256x256 asked for") and len(error.splitlines()) == 1


def test_a_recipe_that_torchruns_ranks_cannot_share_is_refused(recipe: Path) -> None:
    given = load_spec(recipe, model=Recipe)
    assert _of_world(given, 4).training.ranks_per_trial == 4
    with pytest.raises(SpecError, match=r"^training\.batch_size: 4 is not allowed: a multiple of .*, 3$"):
        _of_world(given, 3)
