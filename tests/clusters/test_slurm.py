"""Sweeps by `jobs/launch.py slurm` on a real Slurm of two nodes; each gang has a rank on either.

One sweep meets its time limit in mid-training, goes back into the queue, is preempted by another one when its first
trial has ended, and goes on when that one, of the same specification and left alone, is through.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters.description import load_cluster
from clusters.job import Job
from clusters.slurm import files
from models.catalogue import SHIPPED
from testing.hosts import needed
from testing.slurm_cluster import GRACE_S, NODES, SlurmCluster, missing, until
from testing.watch import every

ROOT = Path(__file__).parents[2]
RUNGS = (32, 480)
BOUND_S = 600

pytestmark = pytest.mark.timeout(1500)  # all sweeps but one run in the first test's fixture


@dataclass
class Watch:
    """What can be seen in /proc while jobs run."""

    commands: set[bytes] = field(default_factory=set)  # of all processes
    environments: dict[str, set[bytes]] = field(default_factory=dict)  # job -> variables of its processes
    gangs: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # job -> (node, network) of training ranks

    def look(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                self.commands.add(command)
                variables = (folder / "environ").read_bytes().split(b"\0")
                if job := of_job(variables):
                    self.environments.setdefault(job, set()).update(variables)
                if job and command.startswith(b"ray::Rank.train"):
                    node = next(variable for variable in variables if variable.startswith(b"SLURMD_NODENAME="))
                    network = str((folder / "ns" / "net").readlink())
                    self.gangs.setdefault(job, set()).add((node.decode().partition("=")[2], network))

    def values(self, job: str, name: str) -> set[str]:
        given = (variable.decode(errors="replace").partition("=") for variable in self.environments[job])
        return {value for variable, _, value in given if variable == name}


def of_job(variables: list[bytes]) -> str | None:
    return next((variable[13:].decode() for variable in variables if variable.startswith(b"SLURM_JOB_ID=")), None)


@contextmanager
def held(job: str) -> Iterator[None]:
    """Stops the ranks of a job, so that Slurm, which checks time limits twice a minute, acts in the middle of it."""
    ranks: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = of_job((folder / "environ").read_bytes().split(b"\0")) == job
            if mine and (folder / "cmdline").read_bytes().startswith(b"ray::Rank"):
                ranks.append(int(folder.name))
    assert len(ranks) == 2
    try:
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)


def left(job: str) -> list[str]:
    """What is left of a job: the commands of its processes, and its folders in /tmp."""
    traces = [str(path) for path in Path("/tmp").glob(f"lic-{job}*")]
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if of_job((folder / "environ").read_bytes().split(b"\0")) == job:
                traces.append((folder / "cmdline").read_bytes().decode(errors="replace"))
    return traces


class Launched:
    """A sweep on the cluster, by the launcher as a user calls it."""

    def __init__(self, name: str, cluster: SlurmCluster, folder: Path, shell: dict[str, str], *words: str) -> None:
        self._slurm, self._output, self.run = cluster, folder / f"{name}.txt", folder / "the runs" / name
        self.options = ("--cluster", str(folder / "cluster.yaml"), "--spec", str(folder / "spec.yaml"))
        launch = [sys.executable, str(ROOT / "jobs" / "launch.py"), "slurm", *self.options, "--set", f"name={name}"]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*launch, *words],
                env=cluster.environment | shell | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._await(lambda: "; log: " in self.printed())
        self.number = re.findall(r"^job (\d+);", self.printed(), re.MULTILINE)[0]

    def printed(self) -> str:
        return self._output.read_text()

    def trials(self) -> list[dict[str, Any]]:
        """The trials' records, in the order in which they are trained."""
        return [json.loads(path.read_text()) for path in sorted((self.run / "trials").glob("*.json"))]

    def reached(self, trial: int, rung: int) -> None:
        """Waits until the trial has ended its rung."""
        self._await(lambda: len(self.trials()) > trial and len(self.trials()[trial]["rungs"]) > rung)

    def starts(self, number: int) -> None:
        self._await(lambda: f"start {number}, on" in self.printed())

    def ended(self) -> int:
        return self.process.wait(BOUND_S)

    def said(self, line: str, times: int = 1) -> None:
        self._await(lambda: self.printed().count(line) == times)

    def _await(self, true: Any) -> None:
        def now() -> bool:
            assert self.process.poll() is None or true(), self.printed()
            return bool(true())

        try:
            until(now, BOUND_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed()}") from None


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    needed(missing())
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shell() -> dict[str, str]:
    """Secret variables of the user's shell."""
    return {"AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}


@pytest.fixture(scope="module")
def planted() -> str:
    """The secrets in the secrets' file."""
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, planted: str) -> Path:
    """A folder with specification, description and secrets; its name has to be quoted in a shell."""
    folder = tmp_path_factory.mktemp("it's a b")
    teacher = str(SHIPPED / "teacher-hyperprior.safetensors")
    spec = {
        "name": "tiny",
        "trials": 2,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": "teacher", "weights": teacher}],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teacher}],
        "losses": [{"latent": 0.1}],
        "training": {"batch_size": 8, "ranks_per_trial": 2},
        "early_stopping": {"rungs": [*RUNGS], "reduction": 2, "rule": "none"},
        "candidates": 1,
    }
    cluster = {
        "nodes": 2,
        "cpus_per_node": 1,
        "memory_gb_per_node": 4,
        "results": str(folder / "the runs"),
        "store": str(folder / "the store"),
        "node_disk": str(folder / "disk"),
        "grace_s": GRACE_S,
        "slurm": {"python": sys.executable, "secrets_file": str(folder / "the keys")},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    (folder / "the keys").write_text(f"export LIC_PLANTED={planted}\n")
    (folder / "the keys").chmod(0o600)
    return folder


@dataclass
class Seen:
    """What was observed of the two sweeps."""

    watch: Watch
    disturbed: Launched
    left_alone: Launched
    codes: tuple[int, int]
    before: list[dict[str, Any]]  # the disturbed sweep's trials when it was preempted
    jobs: str  # what the controller told


@pytest.fixture(scope="module")
def seen(slurm: SlurmCluster, folder: Path, shell: dict[str, str]) -> Iterator[Seen]:
    watch = Watch()
    with every(0.3, watch.look):
        disturbed = Launched("disturbed", slurm, folder, shell)
        disturbed.reached(trial=0, rung=0)
        with held(disturbed.number):
            slurm.run("scontrol", "update", f"JobId={disturbed.number}", "TimeLimit=1")
            disturbed.said("slurm: SIGTERM")
        disturbed.said("slurm: saved; the job goes back")
        slurm.run("scontrol", "update", f"JobId={disturbed.number}", "TimeLimit=60")
        disturbed.starts(2)
        disturbed.reached(trial=1, rung=0)
        with held(disturbed.number):
            left_alone = Launched("left-alone", slurm, folder, shell, "--on", "slurm.partition=urgent")
            disturbed.said("slurm: SIGTERM", times=2)
        disturbed.said("slurm: saved; the job goes back", times=2)
        before = disturbed.trials()
        codes = left_alone.ended(), disturbed.ended()
    jobs = "".join(slurm.run("scontrol", "show", "job", sweep.number) for sweep in (disturbed, left_alone))
    yield Seen(watch, disturbed, left_alone, codes, before, jobs)


def test_a_gang_spans_both_nodes(seen: Seen, slurm: SlurmCluster) -> None:
    assert seen.codes[0] == 0, seen.left_alone.printed()
    assert f"\nresults: {seen.left_alone.run}\n" in seen.left_alone.printed()
    gang = seen.watch.gangs[seen.left_alone.number]
    assert sorted(node for node, _ in gang) == [*NODES] and len({network for _, network in gang}) == 2
    for rung in (rung for trial in seen.left_alone.trials() for rung in trial["rungs"]):
        assert sorted(rung["hosts"]) == [*slurm.addresses.values()]
    assert (seen.left_alone.run / "report.html").is_file()


def test_a_sweep_goes_on_after_its_time_limit_and_a_preemption(seen: Seen) -> None:
    assert seen.codes[1] == 0, seen.disturbed.printed()
    printed = seen.disturbed.printed()
    assert all(printed.count(f"start {number}, on") == 1 for number in (1, 2, 3)) and "start 4" not in printed
    assert printed.count("1 running trials are saved; the same command goes on") == 2
    done, running = seen.before
    assert len(done["rungs"]) == len(RUNGS) and len(running["rungs"]) == 1
    assert RUNGS[0] < running["checkpoint"]["images_seen"] < RUNGS[1]
    after = seen.disturbed.trials()
    assert (
        after[0]["rungs"] == done["rungs"] and after[1]["rungs"][:1] == running["rungs"]
    )  # with times: not trained again
    kept = ("images_seen", "points", "bd_rate_pct", "decision")
    undisturbed = seen.left_alone.trials()
    for mine, other in zip(after, undisturbed, strict=True):
        assert mine["trial_id"] == other["trial_id"]
        assert [[rung[key] for key in kept] for rung in mine["rungs"]] == [
            [rung[key] for key in kept] for rung in other["rungs"]
        ]


def test_no_secret_is_visible(
    seen: Seen, slurm: SlurmCluster, folder: Path, shell: dict[str, str], planted: str
) -> None:
    tokens: set[str] = set()
    for sweep, starts in ((seen.disturbed, 3), (seen.left_alone, 1)):
        given = seen.watch.values(sweep.number, "RAY_AUTH_TOKEN")
        assert len(given) == starts and {len(token) for token in given} == {64}  # a fresh one a start
        assert seen.watch.values(sweep.number, "LIC_PLANTED") == {planted}  # which the file is for
        assert not seen.watch.values(sweep.number, "AWS_SECRET_ACCESS_KEY")
        tokens |= given
    cluster = load_cluster(folder / "cluster.yaml")
    rendered = files(cluster, Job(name="n", spec=folder / "spec.yaml", root=ROOT))
    kept = [folder / "the keys", slurm.folder / "munge.key"]
    written = [path for top in (folder, slurm.folder) for path in top.rglob("*") if path.is_file() and path not in kept]
    names = {path.name for path in written}
    assert {"mlflow.db", "account.json", f"disturbed-{seen.disturbed.number}.log", "script"} <= names
    texts = [*(path.read_bytes() for path in written), *seen.watch.commands, seen.jobs.encode()]
    texts += [text.encode() for text in rendered.values()]
    for secret in (planted, *shell.values(), *tokens):
        assert not [text[:200] for text in texts if secret.encode() in text]


def test_an_impossible_launch_is_one_line(slurm: SlurmCluster, folder: Path) -> None:
    open_to_all = folder / "open keys"
    open_to_all.write_text("")
    open_to_all.chmod(0o644)
    no_shell = folder / "no shell's"
    no_shell.write_text("# a comment\nexport A='b c'\nexport AWS_SECRET_ACCESS_KEY = hush-hush\n")
    no_shell.chmod(0o600)
    for setting, code, line in (
        (f"slurm.secrets_file={open_to_all}", 1, f"others may read it (mode 644): chmod 600 {open_to_all}\n"),
        (f"slurm.secrets_file={no_shell}", 2, "slurm: slurm.secrets_file: line 3 is not NAME=VALUE"),
        ('slurm.setup=["false"]', 2, "slurm: a line of slurm.setup failed: false\n"),
        ("slurm.python=/usr/bin/python3", 1, "slurm: Ray has ended on n1, exit code 1:\n"),  # it has no Ray
        ("slurm.partition=nowhere", 1, "sbatch refuses the job: error: invalid partition specified: nowhere;"),
    ):
        options = ("--cluster", str(folder / "cluster.yaml"), "--spec", str(folder / "spec.yaml"), "--on", setting)
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "launch.py"), "slurm", *options],
            env=slurm.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == code and line in printed and "Traceback" not in printed, printed
        assert "hush" not in printed


def test_scancel_leaves_nothing(seen: Seen, slurm: SlurmCluster, folder: Path, shell: dict[str, str]) -> None:
    assert not left(seen.disturbed.number) and not left(seen.left_alone.number)
    sweep = Launched("cancelled", slurm, folder, shell)
    sweep.reached(trial=0, rung=0)
    assert len(left(sweep.number)) > 10
    sweep.process.send_signal(signal.SIGINT)  # Ctrl-C ends the launcher alone
    assert sweep.ended() == 130 and f"job {sweep.number} goes on; " in sweep.printed()
    assert slurm.job(sweep.number)["JobState"] == "RUNNING"
    slurm.run("scancel", sweep.number)
    until(lambda: not slurm.run("squeue", "-h"))
    assert not left(sweep.number)
    job = slurm.job(sweep.number)
    assert job["JobState"] == "CANCELLED" and job["Restarts"] == "0"
