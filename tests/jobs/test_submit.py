"""`ray job submit` to a head with token authentication, the feature cache on a real S3 server."""

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

import pytest
import yaml

from models.catalogue import SHIPPED
from tests.servers import free_ports

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def environment(s3_environment: dict[str, str]) -> dict[str, str]:
    """What a user has set in the shell: a token, and the way to S3."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    return kept | s3_environment | settings | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture
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


def tiny(folder: Path) -> Path:
    """Two trials; it lies in the working directory's copy only by its absolute path."""
    teacher = str(SHIPPED / "teacher-hyperprior.safetensors")
    data = {
        "name": "submitted",
        "trials": 2,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": "teacher", "weights": teacher}],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teacher}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "early_stopping": {"rungs": [32, 64], "reduction": 2},
        "candidates": 1,
        "results": str(folder / "runs"),
    }
    path = folder / "submitted.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_submitted_sweep_keeps_its_features_on_s3(head, environment, s3_server, tmp_path):
    store = f"s3://{s3_server.bucket}/submitted"
    job = ("python", "jobs/sweep_feds.py", "--spec", str(tiny(tmp_path)), "--set", f"store={store}")

    refused = submit(head, environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "list")
    assert refused.returncode != 0 and "token authentication" in refused.stderr

    done = submit(head, environment, "submit", "--working-dir", ".", "--", *job)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "succeeded" in output, output
    assert "features: 0 shards reused" in output
    objects = s3_server.client().list_objects_v2(Bucket=s3_server.bucket, Prefix="submitted/")["Contents"]
    assert sum("/ledgers/" in each["Key"] for each in objects) == 2  # the pixels' and the teacher's
    assert json.loads((tmp_path / "runs/submitted/front.json").read_text())

    again = submit(head, environment, "submit", "--working-dir", ".", "--", *job, "--set", "name=second")
    output = again.stdout + again.stderr
    assert again.returncode == 0 and "0 computed" in output, output
    for secret in (s3_server.secret_key, environment["RAY_AUTH_TOKEN"]):
        files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert secret not in output
