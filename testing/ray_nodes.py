"""A Ray cluster whose nodes are hosts of their own (see hosts.py), as Slurm or an operator would start it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from testing.hosts import Hosts

ROOT = Path(__file__).resolve().parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
LEAVE_S = 20.0
# A node that is cut off is given up within seconds, not within a minute.
SOON = {f"RAY_health_check_{name}": "1000" for name in ("period_ms", "timeout_ms", "initial_delay_ms")}


class RayNodes:
    """While the context lasts: a head on the hosts' first name, and what `join` adds.

    Args:
        hosts: that run.
        cpus: of each node.
        variables: further ones of the nodes' and the driver's environment.
    """

    def __init__(self, hosts: Hosts, cpus: int = 1, **variables: str) -> None:
        self._hosts, self._cpus = hosts, cpus
        self.head = next(iter(hosts.addresses))
        self.address = f"{hosts.addresses[self.head]}:{PORT}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        settings |= SOON | {
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "300",
            "RAY_health_check_failure_threshold": "3",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.environment = kept | settings | {"PYTHONPATH": str(ROOT)} | variables
        self._nodes: dict[str, tuple[subprocess.Popen[bytes], str]] = {}

    def __enter__(self) -> Self:
        self.join(self.head)
        return self

    def __exit__(self, *exception: object) -> None:
        trees = [psutil.Process(process.pid) for process, _ in self._nodes.values() if process.poll() is None]
        trees += [child for tree in trees for child in tree.children(recursive=True)]
        for process, _ in self._nodes.values():
            process.terminate()
        _, living = psutil.wait_procs(trees, timeout=LEAVE_S)  # a host that was cut off waits for its head
        for tree in living:
            with suppress(psutil.NoSuchProcess):
                tree.kill()
        for process, folder in self._nodes.values():
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def joined(self, count: int) -> None:
        """Waits until so many nodes are alive."""
        program = "import ray, sys, time\nray.init(log_to_driver=False)\n"
        program += "while sum(node['Alive'] for node in ray.nodes()) != int(sys.argv[1]): time.sleep(0.2)"
        command = self._hosts.command(self.head, [sys.executable, "-c", program, str(count)])
        subprocess.run(
            command, env=self.environment | {"RAY_ADDRESS": self.address}, check=True, timeout=300, capture_output=True
        )

    def join(self, name: str) -> None:
        """Starts a node, and returns before it has joined."""
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has at most 107 characters
        role = f"--head --port={PORT} --include-dashboard=false" if name == self.head else f"--address={self.address}"
        words = f"{RAY} start {role} --block --node-ip-address={self._hosts.addresses[name]} --num-cpus={self._cpus} "
        words += f"--object-store-memory=134217728 --temp-dir={folder} --disable-usage-stats"
        with Path(folder, "output.txt").open("wb") as output:
            process = subprocess.Popen(
                self._hosts.command(name, words.split()), env=self.environment, stdout=output, stderr=output
            )
        self._nodes[name] = process, folder

    def terminate(self, name: str) -> None:
        """What a pod that is deleted, or a spot machine, is sent."""
        self._nodes[name][0].send_signal(signal.SIGTERM)

    def run(self, arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
        """A driver on the head's host; its output is behind what is in output.txt in the folder."""
        with (folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                self._hosts.command(self.head, arguments),
                cwd=folder,
                env=self.environment | {"RAY_ADDRESS": self.address},
                stdout=output,
                stderr=output,
            )


def await_until(reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, bound_s: float = 600) -> None:
    """Polls until something holds; fails with the log if the process ends before, or after so many seconds."""
    deadline = time.monotonic() + bound_s
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.1)
