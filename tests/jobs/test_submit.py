"""`ray job submit` to a head with token authentication, the feature cache on a real S3 server.

Two sweeps of one specification; between them objects of the feature store are damaged, and the second ends alike.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalogue import SHIPPED
from orchestrator.crops import batch_at
from orchestrator.features.key import FeaturePlan
from orchestrator.spec import load_spec
from orchestrator.store import Store
from orchestrator.sweep.plan import Plan
from tests.servers import SeaweedFS, free_ports

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
BATCH, RUNGS = 8, (16, 40)  # the second rung's steps read rate points, and so shards, that the first one's do not


@pytest.fixture(scope="module")
def environment(s3_server: SeaweedFS) -> dict[str, str]:
    """What a user has set in the shell: a token, and the way to S3."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    return kept | s3_server.environment | settings | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def head(environment: dict[str, str]) -> Iterator[str]:
    """The address of a head of our own; the README's `ray start` line, on free ports."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    port, dashboard, agent, client = free_ports(4)
    address = f"http://127.0.0.1:{dashboard}"
    command = f"""{RAY} start --head --block --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1
        --disable-usage-stats --port={port} --dashboard-port={dashboard} --dashboard-agent-listen-port={agent}
        --ray-client-server-port={client} --num-cpus=2 --temp-dir={folder} --object-store-memory=268435456"""
    process = subprocess.Popen(command.split(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while submit(address, environment, "list").returncode:
            assert process.poll() is None and time.monotonic() < deadline, "the head did not come up"
            time.sleep(1)
        yield address
    finally:
        process.terminate()  # with --block the head's processes end with it
        process.wait(60)


def submit(address: str, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", words[0], "--address", address, *words[1:]]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, s3_server: SeaweedFS) -> Path:
    """A control and a distilled trial; it lies in the working directory's copy only by its absolute path."""
    folder = tmp_path_factory.mktemp("submitted")
    teacher = str(SHIPPED / "teacher-hyperprior.safetensors")
    data = {
        "name": "first",
        "trials": 2,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": "teacher", "weights": teacher}],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teacher}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "training": {"batch_size": BATCH},
        "early_stopping": {"rungs": [*RUNGS], "reduction": 2},
        "candidates": 1,
        "results": str(folder / "runs"),
        "store": f"s3://{s3_server.bucket}/submitted",
    }
    path = folder / "submitted.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


class Sweep:
    """One that was submitted and has ended: what it printed, and its run folder."""

    def __init__(self, name: str, head: str, environment: dict[str, str], spec: Path) -> None:
        job = ("python", "jobs/sweep_feds.py", "--spec", str(spec), "--set", f"name={name}")
        node = ("--set", f"node_cache.folder={spec.parent / name}")  # that no other sweep has filled
        done = submit(head, environment, "submit", "--working-dir", ".", "--", *job, *node)
        self.output, self.folder = done.stdout + done.stderr, spec.parent / "runs" / name
        assert done.returncode == 0 and "succeeded" in self.output, self.output
        written = [path.read_bytes() for path in self.folder.rglob("*") if path.is_file()]
        for secret in (environment["AWS_SECRET_ACCESS_KEY"], environment["RAY_AUTH_TOKEN"]):
            assert secret not in self.output and not any(secret.encode() in each for each in written)

    def load(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def trials(self) -> dict[str, Any]:
        return {path.name: self.load(f"trials/{path.name}") for path in sorted((self.folder / "trials").glob("*.json"))}

    def rungs(self) -> dict[str, Any]:
        """By trial: what a rung measured and decided, without times and without what was mended."""
        kept = ("images_seen", "points", "bd_rate_pct", "losses", "decision")
        return {
            name: [{key: rung[key] for key in kept} for rung in record["rungs"]]
            for name, record in self.trials().items()
        }

    def front(self) -> list[dict[str, Any]]:
        """Without times."""
        entries = self.load("front.json")
        return [{key: value for key, value in entry.items() if not key.endswith("_s")} for entry in entries]


@pytest.fixture(scope="module")
def first(head: str, environment: dict[str, str], spec: Path) -> Sweep:
    return Sweep("first", head, environment, spec)


def damage(store: Store, name: str, how: str) -> None:
    data = store.read(name)
    flipped = bytes([*data[:-9], data[-9] ^ 1, *data[-8:]])
    store.replace(name, {"flipped": flipped, "truncated": data[:-1]}[how])


def test_a_head_wants_its_token(head: str, environment: dict[str, str]) -> None:
    refused = submit(head, environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "list")
    assert refused.returncode != 0 and "token authentication" in refused.stderr


def test_a_submitted_sweep_keeps_its_features_on_s3(first: Sweep, s3_server: SeaweedFS) -> None:
    assert "features: 0 shards reused" in first.output
    objects = s3_server.client().list_objects_v2(Bucket=s3_server.bucket, Prefix="submitted/")["Contents"]
    assert sum("/ledgers/" in each["Key"] for each in objects) == 2  # the pixels' and the teacher's
    assert first.load("front.json")


def test_a_sweep_over_damaged_objects_ends_as_an_undisturbed_one(
    first: Sweep,
    head: str,
    environment: dict[str, str],
    spec: Path,
    s3_environment: dict[str, str],
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Plan.of(load_spec(spec))
    store, (pixels, teacher) = Store(plan.spec.store), plan.feature_plans

    def path_of(features: FeaturePlan, tap: str, step: int) -> str:
        crop = batch_at(plan.crops, step, BATCH, plan.spec.seed)[1][0]
        return features.object(tap, next(shard for shard, crops in enumerate(plan.crops.shards) if crop in crops))

    undamaged = {name: store.read(name) for name in store.list("features")}
    seen_late, seen_early = path_of(pixels, "x", 3), path_of(teacher, "y", 0)  # by the control, by the distilled one
    seen_by_the_fill = path_of(teacher, "x_hat", 4)
    damage(store, seen_late, "flipped")
    damage(store, seen_early, "flipped")
    damage(store, seen_by_the_fill, "truncated")
    second = Sweep("second", head, environment, spec)
    shards = sum(len(features.shards) for features in plan.feature_plans)
    assert f"features: {shards - 1} shards reused, 1 computed" in second.output  # all but one that the fill has seen

    assert second.rungs() == first.rungs()
    control, distilled = second.rungs()
    for sweep, expected in ((first, {}), (second, {(control, 1): seen_late, (distilled, 0): seen_early})):
        for trial, record in sweep.trials().items():
            for place, rung in enumerate(record["rungs"]):
                found, name = rung["mended"], expected.get((trial, place))
                assert len(found) == (name is not None) and all(f"{store.url}/{name}: " in line for line in found)
    assert second.front() == first.front()
    said = [line for line in second.output.splitlines() if line.endswith("made anew")]
    assert len(said) == 3 and f"features: {store.url}/{seen_by_the_fill}: tap x_hat: " in said[0]
    assert {name: store.read(name) for name in store.list("features")} == undamaged
    record_property("mended", said)
    with capsys.disabled():
        print(
            "\nfault: 3 objects damaged between two sweeps; outcome: equal rungs and front; said:",
            *said,
            sep="\n  ",
        )
