"""The batch script of a job, as text.

What differs between jobs is rendered here; what they have in common is body.sh.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from clusters.description import Cluster, Container
from clusters.job import Job
from orchestrator.store.place import local_folder

BODY = Path(__file__).with_name("body.sh")
JOIN_S = 300  # for Ray to come up on all nodes; the first import from a cold shared disk takes minutes
FIRST = ("srun", "--export=ALL", "--overlap", "--nodes=1", "--ntasks=1", "--relative=0")


def place(root: Path, given: str) -> str:
    """A place as the job sees it: a relative folder lies in the repository."""
    return given if "://" in given else str(root / given)


def log(cluster: Cluster, job: Job, number: str = "%j") -> Path:
    """Where the job's output goes: beside the run folder, or into the repository if results are on S3."""
    results = local_folder(place(job.root, cluster.results))
    return (results or job.root / "runs") / f"{job.name}-{number}.log"


def script(cluster: Cluster, job: Job) -> str:
    """The whole batch script."""
    slurm = cluster.slurm
    placed = cluster.model_copy(
        update={"results": place(job.root, cluster.results), "store": place(job.root, cluster.store)}
    )
    secrets = str(job.root / slurm.secrets_file) if slurm.secrets_file else ""
    environment = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in cluster.environment.items())
    setup = "".join(f"{line}\n" for line in slurm.setup)
    if setup:
        failed = "slurm: a line of slurm.setup failed: $BASH_COMMAND"
        setup = f"set -E\ntrap 'echo \"{failed}\" >&2; exit 2' ERR\n{setup}trap - ERR\n"
    return "".join(
        (
            "#!/bin/bash\n",
            "# shellcheck disable=SC1090,SC2016,SC2089,SC2090,SC2329 # functions travel to the nodes as text\n",
            "# A sweep: Ray on all nodes of the job, the sweep's own process on the first; by jobs/launch.py.\n",
            *(f"#SBATCH {option}\n" for option in _options(cluster, job)),
            *_assigned(
                ROOT=str(job.root),
                SECRETS=secrets,
                PYTHON=str(job.root / slurm.python) if "/" in slurm.python else slurm.python,
                NODES=cluster.nodes,
                CPUS=cluster.cpus_per_node,
                GPUS=cluster.gpus_per_node,
                JOIN_S=JOIN_S,
                NODE_DISK=cluster.node_disk,
            ),
            _array("SWEEP", job.arguments(str(job.spec), placed.overrides)),
            environment,
            _runtime(placed, job, secrets),
            setup,
            BODY.read_text(encoding="utf-8"),
        )
    )


def _options(cluster: Cluster, job: Job) -> Iterable[str]:
    slurm = cluster.slurm
    output = str(log(cluster, job)).replace("%", "%%").removesuffix("%%j.log") + "%j.log"
    options: dict[str, object] = {
        "job-name": job.name,
        "nodes": cluster.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "mem": f"{cluster.memory_gb_per_node}G",
        "gpus-per-node": cluster.gpus_per_node or None,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": slurm.time_limit,
        "output": output,
        "open-mode": "append",
        "export": "NONE",  # the submitting shell may hold secrets
        "signal": f"B:TERM@{cluster.grace_s}",
    }
    yield from (f"--{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None)
    yield "--requeue"
    yield from slurm.directives


def _assigned(**values: object) -> Iterable[str]:
    return (f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def _array(name: str, words: Iterable[str]) -> str:
    return f"{name}=({shlex.join(words)})\n"


def _runtime(cluster: Cluster, job: Job, secrets: str) -> str:
    """How a command gets into the container: by apptainer in front of it, or with pyxis by the step that it runs in."""
    container = cluster.slurm.container
    step: tuple[str, ...] = ()
    before = ""
    if container and container.runtime == "apptainer":
        nv = ("--nv",) if cluster.gpus_per_node else ()
        binds = (word for path in _seen(cluster, job) for word in ("--bind", path))
        words = ("apptainer", "exec", *nv, "--pwd", str(job.root), *binds, container.image)
        before = shlex.join(words) + " "
    elif container:
        step = _pyxis(container, (*_seen(cluster, job), *((secrets,) if secrets else ())), job)
    first = (*FIRST, "--cpus-per-task", str(cluster.cpus_per_node), *step) if step else ()
    return (
        _array("STEP", step)
        + _array("ON_FIRST", first)
        + f'inside() {{ {before}"$@"; }}\n'
        + f'inside_now() {{ exec {before}"$@"; }}\n'
    )


def _pyxis(container: Container, seen: Iterable[str], job: Job) -> tuple[str, ...]:
    mounts = ",".join(f"{path}:{path}" for path in seen)
    return (
        f"--container-image={container.image}",
        f"--container-mounts={mounts}",
        f"--container-workdir={job.root}",
    )


def _seen(cluster: Cluster, job: Job) -> tuple[str, ...]:
    """Folders that a container must see; /tmp holds the sockets of Ray."""
    shared = (local_folder(cluster.results), local_folder(cluster.store))
    seen = (job.root, job.spec.parent, *(folder for folder in shared if folder), cluster.node_disk, "/tmp")
    return tuple(dict.fromkeys(map(str, seen)))


def seconds(time_limit: str) -> int:
    """Of Slurm's ways to write a time: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S."""
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in re.split(":", rest)]
    if dash:
        hours, minutes, left = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, left = parts
    else:
        hours, (minutes, left) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + left
