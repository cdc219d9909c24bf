"""Jobs for a head with token authentication, the feature cache on a real S3 server.

Two sweeps of one specification, one by `ray job submit` and one by jobs/launch.py; between them objects of the feature
store are damaged, and the second ends alike. No secret of the shell is anywhere afterwards.
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
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml

from models.catalogue import SHIPPED
from orchestrator.features.format.key import FeaturePlan
from orchestrator.photographs.crops import batch_at
from orchestrator.spec.load import load_spec
from orchestrator.store.store import Store
from orchestrator.sweep.plan import Plan
from testing.servers import SeaweedFS, free_ports
from testing.watch import every

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
BATCH, RUNGS = 8, (16, 40)  # the second rung's steps read rate points, and so shards, that the first one's do not


@pytest.fixture(scope="module")
def environment(s3_server: SeaweedFS) -> dict[str, str]:
    """The variables of a user's shell: a token, and how to reach S3."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    settings |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_PASSWORD": secrets.token_hex(16)}
    return kept | s3_server.environment | settings | {"PATH": path, "PYTHONPATH": str(ROOT)}


SECRET = ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(scope="module")
def logs() -> Iterator[Path]:
    """Where the head's Ray keeps its session; a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes of this machine that ran during this module's tests."""
    seen: set[str] = set()

    def look() -> None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                seen.add(" ".join(process.cmdline()))

    with every(0.5, look):
        yield seen


@pytest.fixture(scope="module")
def head(environment: dict[str, str], logs: Path, command_lines: set[str]) -> Iterator[str]:
    """Starts a Ray head by the README's `ray start` line on free ports; its address."""
    port, dashboard, agent, client = free_ports(4)
    address = f"http://127.0.0.1:{dashboard}"
    command = f"""{RAY} start --head --block --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1
        --disable-usage-stats --port={port} --dashboard-port={dashboard} --dashboard-agent-listen-port={agent}
        --ray-client-server-port={client} --num-cpus=2 --temp-dir={logs} --object-store-memory=268435456"""
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


def launch(
    head: str, environment: dict[str, str], spec: Path, name: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Runs jobs/launch.py for a cluster of one node whose disk no other sweep has filled."""
    data = yaml.safe_load(spec.read_text())
    description = {"nodes": 1, "cpus_per_node": 2, "memory_gb_per_node": 8, "node_disk": str(spec.parent / name)}
    description |= {"results": data["results"], "store": data["store"], "s3_endpoint": environment["AWS_ENDPOINT_URL"]}
    file = spec.with_name(f"{name}-cluster.yaml")
    file.write_text(yaml.safe_dump(description | {"ray": {"dashboard": head}}))
    command = [sys.executable, "jobs/launch.py", "ray", "--cluster", str(file), "--spec", str(spec)]
    command += ["--set", f"name={name}", *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)


class Sweep:
    """A sweep that was submitted and has ended: what it printed, and its run folder."""

    def __init__(self, name: str, spec: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.output, self.folder = done.stdout + done.stderr, spec.parent / "runs" / name
        assert done.returncode == 0 and "report: " in self.output, self.output

    def load(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def trials(self) -> dict[str, Any]:
        return {path.name: self.load(f"trials/{path.name}") for path in sorted((self.folder / "trials").glob("*.json"))}

    def rungs(self) -> dict[str, Any]:
        """Trial -> what its rungs measured and decided, without times and repairs."""
        kept = ("images_seen", "points", "bd_rate_pct", "losses", "decision")
        return {
            name: [{key: rung[key] for key in kept} for rung in record["rungs"]]
            for name, record in self.trials().items()
        }

    def front(self) -> list[dict[str, Any]]:
        """The front without times and without the weights' path, which names the sweep's process; the digest stays."""
        entries = self.load("front.json")["students"]
        return [
            {key: value for key, value in entry.items() if not key.endswith("_s") and key != "weights"}
            for entry in entries
        ]


@pytest.fixture(scope="module")
def first(head: str, environment: dict[str, str], spec: Path) -> Sweep:
    job = ("python", "jobs/sweep_feds.py", "--spec", str(spec), "--set", f"node_cache.folder={spec.parent / 'first'}")
    return Sweep("first", spec, submit(head, environment, "submit", "--working-dir", ".", "--", *job))


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
    assert sum("/ledgers/" in entry["Key"] for entry in objects) == 2  # the pixels' and the teacher's
    assert first.front()


@pytest.mark.long
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
    second = Sweep("second", spec, launch(head, environment, spec, "second"))
    assert f"results: {second.folder}\n" in second.output
    shards = sum(len(features.shards) for features in plan.feature_plans)
    assert f"features: {shards - 1} shards reused, 1 computed" in second.output  # all but one that the fill has seen

    assert second.rungs() == first.rungs()
    control, distilled = second.rungs()
    for sweep, expected in ((first, {}), (second, {(control, 1): seen_late, (distilled, 0): seen_early})):
        for trial, record in sweep.trials().items():
            for place, rung in enumerate(record["rungs"]):
                mended, name = rung["mended"], expected.get((trial, place))
                assert len(mended) == (name is not None) and all(f"{store.url}/{name}: " in line for line in mended)
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


def test_a_launcher_ends_with_its_job_s_exit_code(
    first: Sweep, head: str, environment: dict[str, str], spec: Path
) -> None:
    ended = launch(head, environment, spec, "first", "--set", "seed=7")
    assert ended.returncode == 2 and "seed: 7 is not allowed" in ended.stdout, ended.stdout + ended.stderr


def test_a_launcher_without_the_token_is_refused_in_one_line(
    head: str, environment: dict[str, str], spec: Path
) -> None:
    other = secrets.token_hex(32)
    refused = launch(head, environment | {"RAY_AUTH_TOKEN": other}, spec, "first")
    assert refused.returncode == 1 and other not in refused.stderr
    assert refused.stderr.startswith("ray.dashboard: no job was taken at") and refused.stderr.count("\n") == 1


def answered(url: str, environment: dict[str, str]) -> bytes:
    """The dashboard's answer; it is asked again, because the processes that it asks may need a moment."""
    request = Request(url, headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"})
    for _ in range(10):
        with suppress(HTTPError), urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body
        time.sleep(3)
    raise AssertionError(f"{url} gives no answer")


def test_no_secret_is_in_files_logs_command_lines_or_the_dashboard(
    first: Sweep, head: str, environment: dict[str, str], spec: Path, logs: Path, command_lines: set[str]
) -> None:
    """After the sweeps above: what they printed and wrote (MLflow's database with its tags is in the run folder)."""
    places = ["api/jobs/", "api/version", "api/cluster_status", "nodes?view=summary"]
    places += [f"api/v0/{kind}?detail=true" for kind in ("actors", "tasks", "workers", "nodes", "jobs", "runtime_envs")]
    texts = {"output": first.output.encode(), "command lines": "\n".join(command_lines).encode()}
    for place in places:
        texts[place] = answered(f"{head}/{place}", environment)
    for node in json.loads(texts["nodes?view=summary"])["data"]["summary"]:
        detail = f"nodes/{node['raylet']['nodeId']}"
        texts[detail] = answered(f"{head}/{detail}", environment)
    for folder in (logs, spec.parent):
        texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert b"sweep_feds.py" in texts["api/jobs/"] and b"sweep_feds.py" in texts["command lines"]
    assert any(name.endswith("mlflow.db") for name in texts) and any("job-driver" in name for name in texts)
    for name in SECRET:
        assert [place for place, text in texts.items() if environment[name].encode() in text] == [], name
