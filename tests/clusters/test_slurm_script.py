from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clusters import slurm
from clusters.backend import LaunchError
from clusters.description import Cluster, load_cluster
from clusters.job import Job
from clusters.slurm import submit
from clusters.slurm.script import log, script, seconds
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.spec import Spec

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "clusters" / "specs" / "slurm.yaml"
JOB = Job(
    name="quickstart",
    spec=Path("/shared/it's mine/a spec.yaml"),
    overrides=("name=a b", "training.learning_rate=3e-4"),
    root=Path('/shared/a "clone" of $HOME\'s'),
)
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gpus": {"gpus_per_node": 4, "s3_endpoint": "https://s3.example.org", "mlflow": "http://mlflow:5000"},
    "s3": {"results": "s3://bucket/runs", "store": "s3://bucket/store", "mlflow": "http://mlflow:5000"},
    "quotes": {"results": '/shared/it\'s a "folder" of 100 %', "store": "file:///shared/$(touch x)/`id`"},
    "apptainer": {
        "slurm": {"container": {"runtime": "apptainer", "image": "/shared/an image.sif"}},
        "gpus_per_node": 1,
    },
    "pyxis": {"slurm": {"container": {"runtime": "pyxis", "image": "docker://lic:1"}, "secrets_file": "/home/me/keys"}},
    "all": {
        "interface": "ib0",
        "slurm": {
            "partition": "long",
            "account": "project one",
            "qos": "low",
            "constraint": "a100|h100",
            "time_limit": "8:00:00",
            "secrets_file": "conf/the keys",
            "setup": ["module load cuda", "export A='b c'"],
            "directives": ["--exclusive"],
        },
    },
}


def cluster(**given: Any) -> Cluster:
    settings = {"nodes": 2, "cpus_per_node": 8, "memory_gb_per_node": 32, "results": "runs", "store": "runs/store"}
    settings |= {"node_disk": "/tmp/lic-distillery"}
    return Cluster.model_validate(settings | given, strict=False)


def options(text: str) -> dict[str, str]:
    """The options of its #SBATCH lines, as a shell reads them."""
    lines = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert len(lines) == text.count("#SBATCH")
    words = [word for line in lines for word in shlex.split(line)]
    return {name.removeprefix("--"): value for name, _, value in (word.partition("=") for word in words)}


def value_of(text: str, name: str) -> list[str]:
    """What the shell makes of an assignment in the script's head; nothing is run."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name}="))
    words = line.removeprefix(f"{name}=")
    return shlex.split(words[1:-1] if words.startswith("(") else words)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_script_is_right_bash(name: str, tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    path.write_text(script(cluster(**DESCRIPTIONS[name]), JOB))
    subprocess.run(["bash", "-n", str(path)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    assert shellcheck.exists(), "shellcheck is missing: make setup-test"
    done = subprocess.run([str(shellcheck), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_options_say_what_the_description_does() -> None:
    plain = options(script(cluster(), JOB))
    assert plain == {
        "job-name": "quickstart",
        "nodes": "2",
        "ntasks-per-node": "1",
        "cpus-per-task": "8",
        "mem": "32G",
        "output": f"{JOB.root}/runs/quickstart-%j.log",
        "open-mode": "append",
        "export": "NONE",
        "signal": "B:TERM@60",
        "requeue": "",
    }
    every = options(script(cluster(gpus_per_node=4, **DESCRIPTIONS["all"]), JOB))
    added = {"gpus-per-node": "4", "partition": "long", "account": "project one", "qos": "low", "time": "8:00:00"}
    assert every == plain | added | {"constraint": "a100|h100", "exclusive": ""}


def test_paths_survive_the_shell() -> None:
    quotes = cluster(**DESCRIPTIONS["quotes"])
    text = script(quotes, JOB)
    assert value_of(text, "ROOT") == [str(JOB.root)]
    sweep = value_of(text, "SWEEP")
    assert sweep == [*JOB.arguments(str(JOB.spec), quotes.overrides)]
    assert sweep[-4:] == ["--set", "name=a b", "--set", "training.learning_rate=3e-4"]  # the user's come last
    assert options(text)["output"] == '/shared/it\'s a "folder" of 100 %%/quickstart-%j.log'  # Slurm's own %
    assert log(quotes, JOB, "7") == Path('/shared/it\'s a "folder" of 100 %/quickstart-7.log')
    assert f"results={JOB.root}/runs" in value_of(script(cluster(), JOB), "SWEEP")  # a relative folder is the clone's
    on_s3 = cluster(**DESCRIPTIONS["s3"])
    assert "results=s3://bucket/runs" in value_of(script(on_s3, JOB), "SWEEP")
    assert log(on_s3, JOB, "7") == JOB.root / "runs" / "quickstart-7.log"


def test_containers_see_what_the_job_needs() -> None:
    shared = f"{JOB.root}/runs"
    apptainer = script(cluster(**DESCRIPTIONS["apptainer"]), JOB)
    words = shlex.split(re.findall(r'^inside\(\) \{ (.*) "\$@"; \}$', apptainer, re.MULTILINE)[0])
    assert words[:3] == ["apptainer", "exec", "--nv"] and words[-1] == "/shared/an image.sif"
    bound = [path for before, path in pairwise(words) if before == "--bind"]
    assert bound == [str(JOB.root), str(JOB.spec.parent), shared, f"{shared}/store", "/tmp/lic-distillery", "/tmp"]
    pyxis = script(cluster(**DESCRIPTIONS["pyxis"]), JOB)
    step = value_of(pyxis, "STEP")
    assert step[0] == "--container-image=docker://lic:1" and "/home/me/keys:/home/me/keys" in step[1]
    assert value_of(pyxis, "ON_FIRST")[-3:] == step  # the sweep itself runs in a step, and so in the container
    assert value_of(script(cluster(), JOB), "ON_FIRST") == []


def test_no_secret_gets_into_a_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("export AWS_SECRET_ACCESS_KEY=planted-1\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-2")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "planted-3")
    text = script(cluster(slurm={"secrets_file": str(keys)}), JOB)
    assert "planted" not in text and value_of(text, "SECRETS") == [str(keys)]


def test_what_cannot_work_is_refused() -> None:
    spec: Spec = load_spec(ROOT / "jobs" / "specs" / "quickstart.yaml")
    slurm.check(cluster(**DESCRIPTIONS["all"]), spec)
    slurm.check(load_cluster(EXAMPLE), spec)
    for given, line in {
        "time_limit": ({"time_limit": "0:01:30"}, "slurm.time_limit: '0:01:30' is not allowed: more than grace_s"),
        "export": ({"directives": ["--export=ALL"]}, "slurm.directives.0: '--export=ALL' is not allowed"),
        "nodes": ({"directives": ["--exclusive", "-N 3"]}, "slurm.directives.1: '-N 3' is not allowed"),
        "words": ({"directives": ["exclusive"]}, "a long option of sbatch, such as --exclusive"),
        "two": ({"directives": ["--exclusive --nodes=9"]}, "a long option of sbatch, such as --exclusive"),
        "log": ({"directives": ["--error=x"]}, "an option that the script does not set itself"),
    }.values():
        with pytest.raises(SpecError) as refused:
            slurm.check(cluster(slurm=given), spec)
        assert line in str(refused.value)
    for field in ("results", "store"):
        with pytest.raises(SpecError, match=f"{field}: .* without backslashes"):
            slurm.check(cluster(**{field: "a\\b"}), spec)
    with pytest.raises(SpecError, match=r"store: .* commas and colons"):
        slurm.check(cluster(**DESCRIPTIONS["pyxis"] | {"store": "/a,b"}), spec)


@pytest.mark.parametrize(
    ("end", "code"),
    [("COMPLETED 0:0", 0), ("FAILED 2:0", 2), ("FAILED 0:9", 137), ("CANCELLED 0:15", 143), ("TIMEOUT 0:0", 1)],
)
def test_a_job_is_followed_through_a_requeue(
    end: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = tmp_path / "states"
    states.write_text("\n".join(("PENDING 0:0", "RUNNING 0:0", "PENDING 0:0", "RUNNING 0:0", end)))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f"""#!/bin/bash
        read -r state code < {shlex.quote(str(states))}
        sed -i 1d {shlex.quote(str(states))}
        echo "a line, $state" >> {shlex.quote(str(tmp_path / "job.log"))}
        echo "JobId=$5 JobState=$state Reason=None ExitCode=$code"
        """
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("LOOK_S", "ASK_S", "SETTLE_S"):
        monkeypatch.setattr(submit, name, 0.01)
    assert submit.follow("7", tmp_path / "job.log") == code
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("job 7")] == [
        f"job 7: {state}" for state in ("PENDING", "RUNNING", "PENDING", "RUNNING", end.split()[0])
    ]
    assert said.count("a line, PENDING") == 2 and said.count(f"a line, {end.split()[0]}") == 1  # to the last one


@pytest.mark.parametrize(
    ("time_limit", "expected"),
    [("90", 5400), ("1:30", 90), ("1:00:30", 3630), ("2-1", 176400), ("2-1:30", 178200), ("1-0:0:5", 86405)],
)
def test_times_are_read_as_slurm_does(time_limit: str, expected: int) -> None:
    assert seconds(time_limit) == expected


def test_a_job_that_cannot_be_sent_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = Job(name="n", spec=tmp_path / "spec.yaml", root=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"^sbatch is missing"):
        submit.submit(cluster(), job)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(LaunchError, match=r"^sbatch refuses the job: error: invalid partition specified: x$"):
        submit.submit(cluster(), job)
