"""A cluster, as a YAML file describes it: what its nodes have, where results go, and how it is reached.

One description serves all three launchers; each of them reads the common fields and its own section. Secrets are named,
never held: a file on the nodes (Slurm), a Secret (Kubernetes), the nodes' own environment (Ray).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.spec.load import load_spec
from orchestrator.spec.section import Section, refusal
from orchestrator.spec.sections import StoreUrl
from orchestrator.store.place import local_folder
from orchestrator.worker_settings import WORKER_SETTINGS

# Fields of a sweep's specification that are the cluster's to say, and the cluster's own names for them.
OWNED = {
    "results": "results",
    "store": "store",
    "node_cache.folder": "node_disk",
    "preemption.grace_s": "grace_s",
}
SAVING_S = 10  # of the grace, kept for what comes after the trials have been saved


def matching(pattern: str, instead: str) -> AfterValidator:
    """A text that the whole of a pattern fits; `instead` says what is allowed."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(instead)
        return value

    return AfterValidator(check)


def one_line(value: str) -> str:
    """Of what becomes a line of a script."""
    if not value.strip() or any(ord(character) < 32 for character in value):
        raise ValueError("one line of text")
    return value


def image(value: str) -> str:
    """Of a container; what follows an @ may be a digest, never a host."""
    if re.search(r"@(?!sha\d+:)", one_line(value)):
        raise ValueError("an image without credentials, which are the runtime's: a pull secret, or its own login file")
    return value


def reference(value: str) -> str:
    """Of a container, as the kubelet takes it: the grammar of the distribution project's references."""
    name = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    host, tag, digest = r"[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/", r":\w[\w.-]{0,127}", r"@sha\d+:[0-9a-f]{32,}"
    if not re.fullmatch(f"(?:{host})?{name}(?:/{name})*(?:{tag})?(?:{digest})?", image(value), re.ASCII):
        raise ValueError("[HOST[:PORT]/]NAME[:TAG], the name in small letters, such as registry.example.org/lic:0.1.0")
    return value


def web_address(value: str) -> str:
    address = re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::(\d{1,5}))?(?:/[A-Za-z0-9._~/-]*)?", value)
    if not address or int(address[1] or 80) > 65535:
        raise ValueError("http://HOST:PORT or https://HOST, without credentials: those are read from the environment")
    return value


def absolute(value: str) -> str:
    """A folder of a node."""
    if not re.fullmatch(r"(/[^/:,\\\x00-\x1f]+)+", value) or ".." in value.split("/"):
        raise ValueError("an absolute path, such as /scratch/lic-distillery")
    return value


def home(value: str) -> str:
    """~ is the home folder."""
    try:
        return str(Path(value).expanduser()) if value.startswith("~") else value
    except RuntimeError:
        raise ValueError("a path without ~, whose home folder is not known here") from None


def own_folder() -> str:
    """Of a node's disk, which others use as well."""
    return f"/tmp/lic-distillery-{os.getuid()}"


Label = Annotated[
    str, matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower-case letters, digits and hyphens between")
]
Line = Annotated[str, AfterValidator(one_line)]
Image = Annotated[str, AfterValidator(image)]
Reference = Annotated[str, AfterValidator(reference)]
WebAddress = Annotated[str, AfterValidator(web_address)]
Host = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9.:-]*", "a host's name or address")]
File = Annotated[Line, AfterValidator(home)]
Shared = Annotated[StoreUrl, AfterValidator(home)]
TimeLimit = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # minutes
    matching(r"(\d+-)?\d+(:\d+){0,2}", "a time such as 8:00:00, 90 (minutes) or 2-00:00:00"),
]
Interface = Annotated[str, matching(r"[A-Za-z0-9._-]{1,15}", "the name of a network interface, such as ib0")]
Mount = Annotated[str, matching(r"/[^\s:]+", "an absolute path, such as /data")]


class Container(Section):
    """A container runtime that Slurm's nodes have."""

    runtime: Literal["apptainer", "pyxis"]
    image: Image  # a .sif file that all nodes see, or what the runtime pulls


class Slurm(Section):
    partition: Line | None = None  # null: the cluster's default, as for all that follow
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    time_limit: TimeLimit | None = None  # such as 8:00:00
    # a file with lines such as export AWS_ACCESS_KEY_ID=..., mode 600, that all nodes see; null: nothing is secret
    secrets_file: File | None = None
    python: File = "python"  # of the environment on the nodes, or in the container
    setup: tuple[Line, ...] = ()  # lines of the batch script before anything is started, such as module load cuda
    container: Container | None = None  # null: the nodes' own environment
    directives: tuple[Line, ...] = ()  # further options of sbatch, such as --exclusive


class Toleration(Section):
    key: Line
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = "NoSchedule"


class Claim(Section):
    """A PersistentVolumeClaim that all pods can mount: photographs, and whatever is no bucket."""

    name: Label
    path: Mount = "/data"  # where pods see it


class Kubernetes(Section):
    namespace: Label = "default"
    secret: Label | None = None  # a Secret of the namespace; its keys become environment variables of all pods
    service_account: Label | None = None
    claim: Claim | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)  # of the nodes that train
    tolerations: tuple[Toleration, ...] = ()  # theirs; that of nvidia.com/gpu is there where there are GPUs
    spot: dict[str, str] = Field(
        default_factory=dict
    )  # labels of nodes that may go: workers are put there, the head never
    min_nodes: Annotated[int, Field(ge=0)] | None = None  # fewer than nodes: idle workers are given back
    retries: Annotated[int, Field(ge=0, le=100)] = (
        2  # of the whole job, each on a new cluster: the sweep goes on where it was
    )


class Ray(Section):
    dashboard: WebAddress = "http://127.0.0.1:8265"  # what jobs are submitted to
    head: Host | None = None  # hosts of a cluster that `ray up` starts, by ssh
    workers: tuple[Host, ...] = ()
    ssh_user: Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_.-]*", "a user's name")] = "root"
    python_environment: Line = ".venv"  # its folder on the hosts


class Cluster(Section):
    nodes: Annotated[int, Field(ge=1, le=10_000)]  # that train
    cpus_per_node: Annotated[int, Field(ge=1, le=10_000)]
    gpus_per_node: Annotated[int, Field(ge=0, le=100)] = 0
    memory_gb_per_node: Annotated[int, Field(ge=2, le=100_000)]
    image: Reference | None = None  # of the project's container, for Kubernetes; see clusters/kubernetes/Dockerfile
    results: Shared  # s3://bucket/prefix, or a folder that all nodes see
    store: Shared  # of the feature cache, likewise
    node_disk: Annotated[str, AfterValidator(absolute)] = Field(default_factory=own_folder)  # what was read from S3
    s3_endpoint: WebAddress | None = None  # null: AWS itself, or no S3
    mlflow: WebAddress | None = None  # the tracking server; null: a SQLite file in the run folder
    # network interface between the ranks of a gang, such as ib0; null: the one with the node's Ray address
    interface: Interface | None = None
    grace_s: Annotated[int, Field(ge=20, le=86_400)] = 60  # from the notice that a node or the job must go to its end
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()
    ray: Ray = Ray()

    def problems(self) -> Iterator[str]:
        least = self.kubernetes.min_nodes
        if least is not None and least > self.nodes:
            yield refusal("kubernetes.min_nodes", least, f"at most {self.nodes}, the number of nodes")
        if self.mlflow is None and local_folder(self.results) is None:
            yield refusal("mlflow", None, "http://HOST:PORT, since results on S3 have no room for a SQLite file")

    @property
    def environment(self) -> dict[str, str]:
        """Variables that Ray's daemons, the sweep and its trials start with; none of them is secret."""
        variables = WORKER_SETTINGS | {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
        if self.s3_endpoint:
            variables["AWS_ENDPOINT_URL"] = self.s3_endpoint
        if self.mlflow:
            variables["MLFLOW_TRACKING_URI"] = self.mlflow
        if self.interface:
            variables |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        return variables

    @property
    def overrides(self) -> tuple[str, ...]:
        """Those fields of the sweep's specification that are OWNED, as FIELD=VALUE."""
        values = (self.results, self.store, self.node_disk, self.grace_s - SAVING_S)
        return tuple(f"{field}={value}" for field, value in zip(OWNED, values, strict=True))


def load_cluster(path: str | Path, overrides: Sequence[str] = ()) -> Cluster:
    """The description in a YAML file, read as strictly as a sweep's specification. Raises SpecError."""
    return load_spec(path, overrides, model=Cluster, option="--on")
