"""Sending and following a job, with a kubectl of the test's own on PATH: no real cluster is available here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters.backend import LaunchError
from clusters.kubernetes import launch, submit
from tests.clusters.descriptions import ROOT, cluster, job

FAKE = """#!{python}
import json, pathlib, shutil, sys
folder, words = pathlib.Path({folder!r}), sys.argv[1:]
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(words) + "\\n")
assert words[:2] == ["--namespace", "lic-distillery"], words
verb, states = words[2], json.loads((folder / "states.json").read_text())
if verb == "get":
    state = states.pop(0) if len(states) > 1 else states[0]
    (folder / "states.json").write_text(json.dumps(states))
    if isinstance(state, str):
        sys.exit("warning: something else\\n" + state)
    print("" if state is None else json.dumps({{"status": state}}))
elif verb == "apply":
    sent = pathlib.Path(words[words.index("--filename") + 1])
    shutil.copytree(sent, folder / "sent", dirs_exist_ok=True)
    refusal = folder / "refusal"
    if refusal.exists():
        sys.exit(refusal.read_text())
    print("configmap/quickstart created")
elif verb == "logs":
    print("[ 1/12] a line of the sweep")
"""
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
STARTING = {"jobDeploymentStatus": "Initializing"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def failed(code: int) -> dict[str, str]:
    message = f"Job entrypoint command failed with exit code {code}, last available logs:\nmany lines"
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}


class Fake:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "kubectl"
        program.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)

    def answers(self, *states: Any) -> None:
        """The RayJob's statuses, one a get; None: there is none; a text: kubectl fails with it. The last one stays."""
        (self.folder / "states.json").write_text(json.dumps(states))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    @property
    def verbs(self) -> list[str]:
        return [call[2] for call in self.calls]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    return Fake(tmp_path)


def test_a_sweep_is_sent_and_followed_to_its_end(kubectl: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    kubectl.answers(None, {}, STARTING, RUNNING, DONE)
    assert launch(cluster("one-gpu-node"), job("trials=2")) == 0
    assert kubectl.verbs == ["get", "apply", "get", "get", "get", "logs", "get"]
    sent = {path.name: yaml.safe_load(path.read_text()) for path in (kubectl.folder / "sent").iterdir()}
    assert set(sent) == {"configmap.yaml", "rayjob.yaml"}
    assert "--set trials=2" in sent["configmap.yaml"]["data"]["sweep.sh"]
    said = capfd.readouterr().out
    assert "rayjob/quickstart: Running" in said and "a line of the sweep" in said


def test_a_retry_is_followed_as_well(kubectl: Fake) -> None:
    kubectl.answers(None, RUNNING, {"jobDeploymentStatus": "Retrying"}, STARTING, RUNNING, DONE)
    assert launch(cluster("one-gpu-node"), job()) == 0
    assert kubectl.verbs.count("logs") == 2
    first, second = (call[3:] for call in kubectl.calls if call[2] == "logs")
    assert first == ["--follow", "job/quickstart"]
    # counted back by the node: a moment by this machine's clock may be an hour off there, and lines would be lost
    assert second[:2] == first and re.fullmatch(r"--since=\d+s", second[2]) and second[3:] == []


@pytest.mark.parametrize("code", [1, 2, 75])
def test_the_exit_code_is_the_sweeps_own(code: int, kubectl: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    kubectl.answers(None, RUNNING, failed(code))
    assert launch(cluster("one-gpu-node"), job()) == code
    assert f"AppFailed: Job entrypoint command failed with exit code {code}" in capfd.readouterr().out


@pytest.mark.parametrize(
    "status",
    [
        {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "RayJob name should be"},
        {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"},
        {"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"},
    ],
)
def test_an_end_without_an_exit_code_is_1(status: dict[str, str], kubectl: Fake) -> None:
    kubectl.answers(None, status)
    assert launch(cluster("one-gpu-node"), job()) == 1


def test_a_job_that_has_ended_makes_room_for_the_next(kubectl: Fake) -> None:
    kubectl.answers(failed(75), RUNNING, DONE)
    assert launch(cluster("one-gpu-node"), job()) == 0
    assert kubectl.verbs[:3] == ["get", "delete", "apply"]


def test_a_job_that_runs_is_followed_and_left_as_it_is(kubectl: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    kubectl.answers(RUNNING, RUNNING, DONE)
    assert launch(cluster("one-gpu-node"), job()) == 0
    assert "apply" not in kubectl.verbs and "delete" not in kubectl.verbs
    assert "is running, and is followed" in capfd.readouterr().out


def test_an_api_server_that_is_away_for_a_while_is_waited_for(kubectl: Fake) -> None:
    away = "Unable to connect to the server"
    kubectl.answers(None, RUNNING, away, away, DONE)
    assert launch(cluster("one-gpu-node"), job()) == 0


def test_an_api_server_that_stays_away_ends_the_following(kubectl: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "PATIENCE", 3)
    kubectl.answers(None, STARTING, "Unable to connect to the server")
    with pytest.raises(LaunchError, match="rayjob/quickstart cannot be followed, it may go on: kubectl get: Unable"):
        launch(cluster("one-gpu-node"), job())


def test_a_job_that_is_deleted_meanwhile_is_one_line(kubectl: Fake) -> None:
    kubectl.answers(None, RUNNING, None)
    with pytest.raises(LaunchError, match="rayjob/quickstart was deleted"):
        launch(cluster("one-gpu-node"), job())


def test_what_kubectl_refuses_is_one_line(kubectl: Fake) -> None:
    kubectl.answers(None)
    (kubectl.folder / "refusal").write_text('Error from server: namespaces "lic-distillery" not found')
    command = [sys.executable, "jobs/launch.py", "kubernetes", "--cluster", "clusters/specs/one-gpu-node.yaml"]
    done = subprocess.run(
        [*command, "--spec", "jobs/specs/quickstart.yaml", "--set", "training.gpus_per_rank=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    hint, line = done.stderr.splitlines()
    assert hint == "training.gpus_per_rank is 0: trials train on CPUs, though nodes have GPUs"
    assert line == 'kubectl apply: Error from server: namespaces "lic-distillery" not found'


def test_no_kubectl_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="kubectl is not on PATH"):
        launch(cluster("one-gpu-node"), job())
