"""A ladder trained on photographs: under Ray Train, by torchrun, on S3; cut off and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from jobs.train_teacher import main
from models.weights import digest, load_ladder, read_metadata
from orchestrator.store.store import Store
from orchestrator.teacher.record import TeacherRecord, read_record
from testing.servers import SeaweedFS

pytestmark = pytest.mark.slow  # trains under torchrun and under Ray

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "jobs" / "train_teacher.py")
RAY = (sys.executable, JOB)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", JOB)
TORCHRUN_ONE = (*TORCHRUN[:-2], "1", JOB)


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


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RANK", "WORLD_"))}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def run(command: tuple[str, ...], recipe: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "--recipe", str(recipe), *more],
        capture_output=True,
        text=True,
        cwd=recipe.parent,
        env=environment(**variables),
        timeout=400,
        check=False,
    )


BACKGROUND: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """No job outlives its test, also where the test fails."""
    yield
    while BACKGROUND:
        job = BACKGROUND.pop()
        job.kill()
        job.wait()


def started(command: tuple[str, ...], recipe: Path, *more: str) -> subprocess.Popen[bytes]:
    """The job in the background; what it prints is in output.txt, as a pipe stays open for as long as its Ray lives."""
    with (recipe.parent / "output.txt").open("wb") as output:
        job = subprocess.Popen(
            [*command, "--recipe", str(recipe), *more],
            cwd=recipe.parent,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    BACKGROUND.append(job)
    return job


def printed(recipe: Path) -> str:
    return (recipe.parent / "output.txt").read_text()


def awaited(process: subprocess.Popen[bytes], until: Callable[[], Any], within_s: float = 300) -> None:
    deadline = time.monotonic() + within_s
    while not until():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)


def folder(recipe: Path) -> Path:
    return recipe.parent / "teachers" / "tiny"


def record(recipe: Path) -> TeacherRecord:
    found = read_record(Store(folder(recipe)))
    assert found is not None
    return found


def rows(recipe: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder(recipe) / "log.jsonl").read_text().splitlines()]


def assert_trained(recipe: Path, images: int) -> None:
    weights = folder(recipe) / "tiny.safetensors"
    assert (load_ladder(weights).family, read_metadata(weights).notes["images_seen"]) == ("mean-scale", str(images))
    now = record(recipe)
    assert now.images_seen == images and now.weights_sha256 == digest(weights)
    assert now.checkpoint is not None
    kept = {path.relative_to(folder(recipe)).parts[2] for path in (folder(recipe) / "checkpoints").rglob("*.pt")}
    assert kept == {Path(now.checkpoint.path).name}  # the latest alone


def test_ray_train_says_how_it_goes_and_ends(recipe: Path) -> None:
    photographs = recipe.parent / "photographs"
    photographs.mkdir()
    for path in (ROOT / "data" / "quickstart" / "train").glob("f*.webp"):
        (photographs / path.name).symlink_to(path)
    Image.new("RGB", (40, 40)).save(photographs / "small.png")
    more = ("--set", f"photographs.train={photographs}", "--set", "photographs.unfit=skip")
    done = run(RAY, recipe, *more)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    lines = done.stdout.splitlines()
    small = "left out: {}: 40x40 pixels; both sides need at least 64"
    assert lines[0] == small.format(photographs / "small.png")
    assert lines[1] == f"photographs.train {photographs}: 3 used; left out 1: too small 1"
    assert lines[2].startswith("photographs.validation ") and lines[2].endswith(": 6 used")
    assert lines[3] == "tiny: trains from 0 to 32 images in 2 ranks"
    for images, (progress, curve) in zip((16, 32), (lines[4:6], lines[6:8]), strict=True):
        told = r"  loss \d+\.\d+  bpp \d+\.\d+  distortion \d+\.\d+  \d+\.\d images/s, \d+\.?\d* (s|min|h) left"
        assert re.fullmatch(rf"tiny: {images}/32 images, step {images // 4} of 8{told}", progress), progress
        assert re.fullmatch(rf"tiny: {images}/32 images, validation:( +\d+\.\d+ bpp \d+\.\d+ dB){{5}}", curve), curve
    assert lines[8:] == [f"tiny: {folder(recipe) / 'tiny.safetensors'}  sha256 {record(recipe).weights_sha256}"]
    assert [row["images_seen"] for row in rows(recipe)] == [16, 32]
    assert all(len(row["points"]) == 5 and row["loss"] > 0 and row["seconds"] > 0 for row in rows(recipe))
    assert_trained(recipe, 32)
    log = (folder(recipe) / "sweep.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in log] == lines[3:]

    again = run(RAY, recipe, *more)
    assert again.returncode == 0
    assert again.stdout.splitlines()[3:] == [f"finished before, nothing to do: file://{folder(recipe)}", lines[8]]


@pytest.mark.long
def test_sigterm_saves_and_the_same_command_comes_to_the_same_end(recipe: Path) -> None:
    more = ("--set", "images=400", "--set", "checkpoint_every=400", "--set", "training.ranks_per_trial=1")
    job = started(RAY, recipe, *more)
    awaited(job, lambda: "trains from 0 to 400" in printed(recipe))
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 75, printed(recipe)
    saved = record(recipe).images_seen
    assert saved < 400 and not rows_or_none(recipe)
    last = printed(recipe).splitlines()[-1]
    assert last == f"preempted: tiny is saved at {saved} of 400 images; the same command goes on"
    resumed = run(RAY, recipe, *more)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert saved == 0 or f"goes on from its checkpoint at {saved} images" in resumed.stdout
    assert_trained(recipe, 400)
    undisturbed = run(TORCHRUN_ONE, recipe, *more, "--set", f"results={recipe.parent / 'others'}")
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    (row,) = [json.loads(line) for line in (recipe.parent / "others/tiny/log.jsonl").read_text().splitlines()]
    assert row["points"] == rows(recipe)[0]["points"]


def rows_or_none(recipe: Path) -> list[dict[str, Any]]:
    return rows(recipe) if (folder(recipe) / "log.jsonl").exists() else []


@pytest.mark.long
def test_a_killed_worker_is_started_again(recipe: Path) -> None:
    job = started(RAY, recipe, "--set", "images=4000", "--set", "checkpoint_every=40")
    awaited(job, lambda: rows_or_none(recipe))
    family = psutil.Process(job.pid).children(recursive=True)
    workers = [process for process in family if "RayTrainWorker" in " ".join(process.cmdline())]
    assert len(workers) == 2, [process.cmdline() for process in family]
    workers[1].kill()
    awaited(job, lambda: "goes on from its checkpoint at" in printed(recipe))
    assert re.search(r"^rank \d of 2 died: [^\n]*; it goes on from \d+ images$", printed(recipe), re.MULTILINE)
    job.send_signal(signal.SIGINT)
    assert job.wait(120) == 130 and printed(recipe).splitlines()[-1] == "interrupted"


def test_a_training_on_s3(recipe: Path, s3_server: SeaweedFS, s3_environment: dict[str, str]) -> None:
    url = f"s3://{s3_server.bucket}/teachers"
    more = ("--set", f"results={url}", "--set", "images=16", "--set", "training.ranks_per_trial=1")
    done = run(RAY, recipe, *more, **s3_environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    store, now = Store(url) / "tiny", read_record(Store(url) / "tiny")
    assert now is not None and now.images_seen == 16 and now.checkpoint is not None
    assert {name.split("/")[0] for name in store.list()} == {
        *("spec.yaml", "versions.json", "inputs.json", "teacher.json", "log.jsonl", "checkpoints", "tiny.safetensors")
    }
    assert done.stdout.splitlines()[-1] == f"tiny: {url}/tiny/tiny.safetensors  sha256 {now.weights_sha256}"


def test_what_fails_in_a_worker_is_one_line(recipe: Path) -> None:
    more = ("--set", "training.learning_rate=1e30", "--set", "images=400", "--set", "training.ranks_per_trial=1")
    done = run(RAY, recipe, *more)
    assert done.returncode == 1
    assert re.fullmatch(r"tiny diverged[^\n]*not finite[^\n]*\n", done.stderr), done.stderr
    assert "Traceback" not in done.stdout


def test_torchrun_trains_and_goes_on_where_it_was(recipe: Path) -> None:
    job = started(TORCHRUN, recipe, "--set", "images=400", "--set", "checkpoint_every=40")
    awaited(job, lambda: rows_or_none(recipe))
    job.send_signal(signal.SIGTERM)  # torchrun passes it on to its ranks
    assert job.wait(120) != 0
    saved = record(recipe).images_seen
    assert saved < 400 and "preempted: tiny is saved at" in printed(recipe)
    more = ("--set", "images=400", "--set", "checkpoint_every=200")  # the weights file states its recipe, this too
    whole = run(TORCHRUN, recipe, *more)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert whole.stdout.count(f"goes on from its checkpoint at {saved} images") == 1  # rank 0 alone speaks
    assert_trained(recipe, 400)
    before = record(recipe)
    (folder(recipe) / "tiny.safetensors").unlink()  # lost, and written again from the checkpoint
    mended = run(TORCHRUN, recipe, *more)
    assert mended.returncode == 0 and record(recipe).weights_sha256 == before.weights_sha256, mended.stdout
    assert_trained(recipe, 400)
    other = run(TORCHRUN, recipe, *more, "--set", "seed=1")
    assert other.returncode != 0 and other.stderr.count("seed: 1 is not allowed: file://") == 1


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("images=30", "images: 30 is not allowed: a multiple of training.batch_size, 4"),
        ("network.family=elic", "network.family: 'elic' is not allowed: hyperprior, mean-scale, feds-teacher"),
        ("init=nowhere.safetensors", "is not allowed: random or a file that exists"),
        ("init=tiny.yaml", "tiny.yaml: "),
        ("photographs.train=nowhere", "is not allowed: a folder that exists"),
        ("photographs.train=.", "no photographs in it"),
        ("results=ftp://host/a", "results: 'ftp://host/a' is not allowed: a path, file:///path or s3://bucket/prefix"),
        ("crops.size=2048", "both sides need at least"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_one_line(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], override: str, line: str
) -> None:
    monkeypatch.chdir(recipe.parent)
    monkeypatch.delenv("RANK", raising=False)  # of a process group that other tests joined
    assert main(["--recipe", str(recipe), "--set", override]) == 2
    output, errors = capfd.readouterr()
    assert output == "" and line in errors
    assert len(errors.splitlines()) == (22 if "size" in override else 1)  # one for each photograph that is too small
    assert not (recipe.parent / "teachers").exists()


def test_a_process_with_a_bad_recipe_prints_one_line_and_nothing_else(recipe: Path) -> None:
    done = run(RAY, recipe, "--set", "images=30")
    assert done.returncode == 2 and "images: 30 is not allowed" in done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
