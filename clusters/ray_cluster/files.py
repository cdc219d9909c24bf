"""What starts a Ray cluster: a recipe of `ray start` lines, and a cluster file for `ray up` (both pure).

Token authentication is on throughout. The token is in a file, ~/.ray/auth_token, where Ray looks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from clusters.description import Cluster
from clusters.job import Job
from orchestrator.spec.messages import SpecError
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec
from orchestrator.spec.strict_yaml import write

PORT = 6379
HERE = "127.0.0.1"


def check(cluster: Cluster, spec: Spec) -> None:
    """Raises SpecError for what no Ray cluster can do with them."""
    problems = list(_problems(cluster))
    if problems:
        raise SpecError(problems)


def files(cluster: Cluster, job: Job) -> dict[str, str]:
    """ray-start.sh: lines to type; ray-up.yaml: where hosts are named."""
    texts = {"ray-start.sh": recipe(cluster, job)}
    if cluster.ray.head:
        texts["ray-up.yaml"] = write(cluster_file(cluster, job))
    return texts


def entrypoint(cluster: Cluster, job: Job) -> str:
    """The job's command line; a specification inside the repository travels with it."""
    inside = job.spec.is_relative_to(job.root)
    spec = job.spec.relative_to(job.root) if inside else job.spec
    return shlex.join(("python", *job.arguments(str(spec), cluster.overrides)))


def start(cluster: Cluster, head: str, node: str | None) -> str:
    """The `ray start` of the node with this address; None: any other than the head, which then finds its own."""
    role = f"--head --port={PORT} --dashboard-host={HERE}" if node == head else f"--address={head}:{PORT}"
    address = f"--node-ip-address={HERE} " if node == HERE else ""
    sizes = f"--num-cpus={cluster.cpus_per_node} --num-gpus={cluster.gpus_per_node}"
    return f"ray start {role} {address}{sizes} --disable-usage-stats"


def recipe(cluster: Cluster, job: Job) -> str:
    """Shell lines with comments that say on which node each is typed."""
    head, *workers = _hosts(cluster)
    environment = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in cluster.environment.items())
    others = "".join(f"# on {node}\n{start(cluster, head, node)}\n" for node in workers)
    return f"""\
# once, on {head}: a token; copy the file ~/.ray/auth_token to every node, mode 600
ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token

# on every node, ahead of the lines below: this environment, and whatever is secret (AWS_ACCESS_KEY_ID, ...)
# (in a service, which SIGTERM ends: `ray start` with --block, so that trials are saved)
cd {shlex.quote(str(job.root))} && . {shlex.quote(f"{cluster.ray.python_environment}/bin/activate")}
export RAY_AUTH_MODE=token RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S={cluster.grace_s}
{environment}
# on {head}
{start(cluster, head, head)}
{others}
# on {head}, or wherever its port {urlsplit(cluster.ray.dashboard).port or 8265} leads to, such as by ssh -L: the sweep
ray job submit --address {cluster.ray.dashboard} --working-dir . -- {entrypoint(cluster, job)}

# at the end, on every node that runs no other Ray
ray stop
"""


def cluster_file(cluster: Cluster, job: Job) -> dict[str, object]:
    """For `ray up`, which reaches the hosts by ssh; the repository and its environment are on them already."""
    head, *workers = _hosts(cluster)
    exports = {"RAY_AUTH_MODE": "token", **cluster.environment}
    folder = shlex.quote(str(job.root / cluster.ray.python_environment / "bin" / "activate"))
    before = " && ".join([f". {folder}", *(f"export {name}={shlex.quote(value)}" for name, value in exports.items())])
    return {
        "cluster_name": job.name,
        "max_workers": len(workers),
        "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
        "auth": {"ssh_user": cluster.ray.ssh_user},
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
        "head_start_ray_commands": [f"{before} && {command}" for command in ("ray stop", start(cluster, head, head))],
        "worker_start_ray_commands": [f"{before} && {command}" for command in ("ray stop", start(cluster, head, None))],
    }


def _hosts(cluster: Cluster) -> list[str]:
    """Addresses, the head's first; made-up names where the description names none."""
    if cluster.ray.head:
        return [cluster.ray.head, *cluster.ray.workers]
    return [HERE] if cluster.nodes == 1 else ["HEAD", *(f"NODE{number}" for number in range(2, cluster.nodes + 1))]


def _problems(cluster: Cluster) -> Iterator[str]:
    for field in ("results", "store"):
        place = getattr(cluster, field)
        if "://" not in place and not place.startswith("/"):
            instead = (
                "s3://bucket/prefix or an absolute path that all nodes see: a job runs in a copy of the repository"
            )
            yield refusal(field, place, instead)
    hosts = 1 + len(cluster.ray.workers)
    if cluster.ray.head and hosts != cluster.nodes:
        beside = f"{cluster.nodes - 1} hosts beside ray.head, since nodes is {cluster.nodes}"
        yield refusal("ray.workers", list(cluster.ray.workers), beside)
    if cluster.ray.workers and not cluster.ray.head:
        yield refusal("ray.head", None, "the head's host, since ray.workers names others")
