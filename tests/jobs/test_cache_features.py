"""The feature store filled ahead of a sweep and looked after, by the commands that a user types."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

from jobs.cache_features import main
from models.catalogue import SHIPPED
from orchestrator.features.format.key import plan_features
from orchestrator.features.keep.holds import read_holds
from orchestrator.photographs.crops import plan_crops
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from tests.features.conftest import fill_here

ROOT = Path(__file__).parents[2]
JOB, SWEEP = str(ROOT / "jobs" / "cache_features.py"), str(ROOT / "jobs" / "sweep_feds.py")


@pytest.fixture(scope="module")
def cluster(s3_server) -> Iterator[dict[str, str]]:
    """A Ray of the tests' own that the jobs join; the environment that leads there, and to the S3 server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        with connected(num_cpus=2):
            address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_AUTH_MODE": "token"}
            yield {**os.environ, **address, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory, s3_server) -> Path:
    """Two trials of one student and one teacher, 5 shards of pixels and 5 of the teacher's, on S3."""
    folder = tmp_path_factory.mktemp("spec")
    teacher = str(SHIPPED / "teacher-hyperprior.safetensors")
    data = {
        "name": "ahead",
        "trials": 2,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 40, "size": 64},
        "validation": {"crops": 1, "size": 128},
        "teachers": [{"name": "teacher", "weights": teacher}],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teacher}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "training": {"batch_size": 8, "ranks_per_trial": 1},
        "early_stopping": {"rungs": [8], "reduction": 2},
        "store": f"s3://{s3_server.bucket}/{uuid.uuid4().hex}",
        "results": str(folder / "runs"),
    }
    path = folder / "ahead.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run(*words: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> tuple[int, str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, JOB, *words]
    done = subprocess.run(command, env=env or kept, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_sweep_finds_what_was_filled_ahead(cluster, s3_environment, s3_server, spec):
    store = Store(yaml.safe_load(spec.read_text())["store"])
    code, output, _ = run("--spec", str(spec), "--plan", env=cluster)
    *photographs, head, pixels, y, x_hat, total = output.splitlines()
    assert [line.split(" ")[0] for line in photographs] == ["photographs.train", "photographs.validation"]
    assert code == 0 and head.split()[:5] == ["source", "tap", "shards", "there", "to"]
    assert pixels.split()[:6] == ["pixels", "x", "5", "0", "5", "40"]
    assert y.split()[:7] == ["teacher", "teacher", "y", "5", "0", "5", "40"] and x_hat.split()[0] == "x_hat"
    assert "on the 2 CPUs that Ray has" in total and store.list() == []

    code, output, errors = run("--spec", str(spec), "--taps", "g_a.3:spatial", "y", env=cluster)
    assert code == 0, output + errors
    assert output.splitlines()[-1].startswith("features: 5 shards reused, 10 computed, ")  # the sweep's own ledger
    assert len(store.list("ledgers")) == 3 and len(store.list("features")) == 4 * 5
    assert {held.live for held in read_holds(store)} == {False}

    code, output, _ = run("ls", "--spec", str(spec), env=cluster)
    assert code == 0 and output.count("complete") == 3 and "g_a.3:spatial,x_hat,y" in output
    assert all(secret not in output for secret in (s3_server.secret_key, s3_server.access_key + ":"))

    sweep = subprocess.Popen(
        [sys.executable, SWEEP, "--spec", str(spec)],
        env=cluster,
        cwd=spec.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        seen = []
        assert sweep.stdout is not None
        for line in sweep.stdout:
            seen.append(line)
            if line.startswith("features: ") and "reused" in line:
                break
        assert seen[-1].startswith("features: 10 shards reused, 0 computed, 0 MB"), "".join(seen)
        assert [held.holder for held in read_holds(store) if held.live] == 2 * [f"file://{spec.parent}/runs/ahead"]

        code, output, _ = run("prune", "--spec", str(spec), "--older-than", "0", "--orphans", "--yes", env=cluster)
        assert code == 0 and len(store.list("ledgers")) == 2 and output.count("/runs/ahead holds it") == 2
        assert len(store.list("features")) == 3 * 5  # the wide plan's own tap has gone
    finally:
        sweep.kill()
        sweep.communicate()
    code, output, _ = run("verify", "--spec", str(spec), env=cluster)
    assert code == 0 and output.startswith("verify: 15/15 objects")


def test_a_store_in_a_folder_is_verified_and_pruned(tmp_path, filled_folder):
    store = Store(tmp_path / "a store")
    for name in filled_folder.list():
        store.publish(name, filled_folder.read(name))
    damaged = store.list("features")[0]
    store.replace(damaged, b"torn")
    code, output, _ = run("verify", "--store", str(tmp_path / "a store"), "--drop")
    assert code == 1 and f"{store.url}/{damaged}: tap x, shard " in output and not store.exists(damaged)
    code, output, _ = run("prune", "--store", store.url, "--source", "pixels")
    assert code == 0 and store.list("ledgers") and "nothing was removed; with --yes: 4 objects" in output
    code, output, _ = run("prune", "--store", store.url, "--source", "pixels", "--yes")
    assert code == 0 and store.list() == [] and output.splitlines()[-1].startswith("removed: 4 objects")


@pytest.fixture
def filled_folder(tmp_path, train_photographs) -> Store:
    """Pixels alone."""
    plan = plan_crops(train_photographs, Crops(count=10, size=64), 5, seed=0)
    store = Store(tmp_path / "filled")
    fill_here(store, plan, [plan_features(plan)], {photograph.digest: photograph for photograph in train_photographs})
    return store


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--set", "candidates=0"], 2, "candidates: 0 is not allowed: a whole number of at least 1"),
        (["--set", "photographs.train=nowhere"], 2, "photographs.train: '/"),
        (["--taps", "x"], 2, "taps: 'x' is not allowed: y, y_hat, z, x_hat, entropy, or MODULE:spatial"),
        (["--taps", "z", "--set", "losses=[{}]", "--set", "trials=1"], 2, "taps: ['z'] is not allowed: none, since"),
        (["--spec", "s3://key:hush@bucket/x", "--plan"], 2, "cannot be read: No such file or directory"),
        (["ls", "--store", "s3://key:hush@bucket/x"], 2, "--store: 's3://***@bucket/x' is not allowed: a URL without"),
        (
            ["ls", "--store", "gs://bucket/x"],
            2,
            "--store: 'gs://bucket/x' is not allowed: a path, file:///path or s3://",
        ),
        (["ls", "--store", "s3://B_/x"], 2, "--store: 's3://B_/x' is not allowed: a path, file:///path or s3://bucket"),
        (["ls", "--store", "nowhere"], 1, "/nowhere: there is no such folder: a sweep or a fill makes it"),
        (["verify", "--store", "nowhere"], 1, "/nowhere: there is no such folder"),
        (["prune", "--orphans", "--store", "nowhere"], 1, "/nowhere: there is no such folder"),
        (["ls", "--store", "README.md"], 1, "file://" + str(ROOT / "README.md") + ": "),
        (
            ["prune", "--orphans", "--yes", "--store", ""],
            2,
            "--store: '' is not allowed: a path, file:///path or s3",
        ),  # "$UNSET"
        (["ls", "s3://key:hush@bucket/x"], 2, "unrecognized arguments: s3://***@bucket/x"),
        (["prune", "--yes"], 2, "prune: say what may go: --older-than DAYS, --source TEACHER or --orphans"),
        (["prune", "--older-than", "-1"], 2, "--older-than: invalid days value: '-1'"),
        (["prune", "--older-than", "inf"], 2, "--older-than: invalid days value: 'inf'"),
        (["verify", "--store", "EMPTY", "--source", "nobody"], 1, "source: 'nobody' is not in the store; there are n"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys, words, code, line):
    monkeypatch.chdir(ROOT)
    try:
        exit_code: int | str | None = main([str(tmp_path) if word == "EMPTY" else word for word in words])
    except SystemExit as end:  # argparse
        exit_code = end.code
    output, errors = capsys.readouterr()
    told = [message for message in output.splitlines() if not message.startswith("photographs.")]  # how many are used
    assert (exit_code, told) == (code, []) and line in errors.splitlines()[-1] and "hush" not in errors
    assert len([message for message in errors.splitlines() if not message.startswith(("usage:", " "))]) == 1


def test_a_store_that_is_away_is_one_line(s3_environment):
    environment = {**os.environ, **s3_environment, "AWS_ACCESS_KEY_ID": "nobody"}
    code, output, errors = run("prune", "--orphans", "--store", "s3://sweep/x", env=environment)
    assert (code, output) == (1, "") and len(errors.splitlines()) == 1 and "s3://sweep/x: access denied" in errors
