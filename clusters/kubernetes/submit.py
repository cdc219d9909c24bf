"""Sends manifests with kubectl, and follows the job to its end."""

from __future__ import annotations

import json
import math
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from clusters.backend import LaunchError
from clusters.description import Cluster
from clusters.job import Job
from clusters.kubernetes.manifests import files, label

POLL_S = 5.0
PATIENCE = 60  # unanswered polls in a row until the job is given up as one that cannot be followed: 5 minutes
ENDED = ("Complete", "Failed", "ValidationFailed")  # KubeRay has tried as often as it may


class Status(TypedDict, total=False):
    """A RayJob's, as far as it is read here."""

    jobDeploymentStatus: str  # KubeRay's
    jobStatus: str  # Ray's
    reason: str
    message: str


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str

    def __call__(self, *words: str) -> str:
        """What it prints. Raises LaunchError with the last line of what it complains of."""
        try:
            done = subprocess.run(self._command(*words), capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise LaunchError("kubectl is not on PATH; --dry-run prints the manifests without it") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise LaunchError(f"kubectl {words[0]}: {lines[-1].strip()}")
        return done.stdout

    def status(self, name: str) -> Status | None:
        """Of the RayJob; None: there is none."""
        text = self("get", f"rayjobs.ray.io/{name}", "--ignore-not-found", "--output", "json")
        if not text.strip():
            return None
        status: Status = json.loads(text).get("status", {})
        return status

    def show_log(self, name: str, last_s: float | None) -> bool:
        """Of the job's submitter, which has the RayJob's name, until its pod ends; False: there was none to be had.

        Args:
            last_s: so many seconds of it, which the node counts back by its own clock; None: all.
        """
        words = ["logs", "--follow", f"job/{name}", *([] if last_s is None else [f"--since={math.ceil(last_s)}s"])]
        return not subprocess.run(self._command(*words), stderr=subprocess.DEVNULL, check=False).returncode

    def _command(self, *words: str) -> list[str]:
        return ["kubectl", "--namespace", self.namespace, *words]


def launch(cluster: Cluster, job: Job) -> int:
    """The sweep's exit code. A job of this name that has ended makes room; one that runs is followed as it is."""
    kubectl, name = Kubectl(cluster.kubernetes.namespace), label(job.name)
    status = kubectl.status(name)
    if status is not None and status.get("jobDeploymentStatus") not in ENDED:
        print(f"rayjob/{name} is running, and is followed; what is new in the specification is not sent")
    else:
        if status is not None:
            kubectl("delete", f"rayjobs.ray.io/{name}")
        with tempfile.TemporaryDirectory() as folder:
            for file, text in files(cluster, job).items():
                (Path(folder) / file).write_text(text, encoding="utf-8")
            print(kubectl("apply", "--validate=strict", "--filename", folder), end="")
    return follow(kubectl, name)


def follow(kubectl: Kubectl, name: str, poll_s: float | None = None) -> int:
    """Shows states and the log until KubeRay says that the job has ended; returns the sweep's exit code."""
    shown, unanswered = "", 0
    shown_at: float | None = None  # when the log was shown last
    while True:
        try:
            status = kubectl.status(name)
            unanswered = 0
        except LaunchError as error:
            unanswered += 1
            if unanswered > PATIENCE:
                raise LaunchError(f"rayjob/{name} cannot be followed, it may go on: {error}") from None
            status = {"jobDeploymentStatus": shown}
        if status is None:
            raise LaunchError(f"rayjob/{name} was deleted")
        state = status.get("jobDeploymentStatus") or "Waiting"
        if state != shown:
            print(f"rayjob/{name}: {state}", flush=True)
            shown = state
        if state in ENDED:
            return outcome(status)
        if state == "Running" and kubectl.show_log(name, None if shown_at is None else time.monotonic() - shown_at):
            shown_at = time.monotonic()
        time.sleep(POLL_S if poll_s is None else poll_s)


def outcome(status: Status) -> int:
    """0, or the sweep's exit code; 1 where it has none, with the reason printed."""
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    message = str(status.get("message", ""))
    first = message.splitlines()[0] if message else "no message"
    print(f"{status.get('reason') or status.get('jobStatus') or 'ended'}: {first}")
    code = re.search(r"exit code (\d+)", message)
    return int(code[1]) or 1 if code else 1
