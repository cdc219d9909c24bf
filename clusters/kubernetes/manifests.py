"""A cluster's description and a job as manifests: a ConfigMap with the specification, and a RayJob. All of it pure.

No secret is in any of them: a Secret is named, and Ray's token is made by KubeRay.
"""

from __future__ import annotations

import re
import shlex
from hashlib import sha256
from importlib.metadata import version

import yaml

from clusters.description import Cluster
from clusters.job import Job
from clusters.kubernetes.pods import (
    AUTOSCALER,
    REPOSITORY,
    SPECIFICATION,
    Json,
    Manifest,
    confined,
    head,
    labels,
    limited,
    scales,
    submitter,
    worker,
)

LONGEST_NAME = 47  # of a RayJob: KubeRay makes the names of its pods and services from it
SUBMITTER_TRIES = 5  # a new head is not up at once
IDLE_S = 600  # longer than a trial takes to start, or its node would go from under it
KEPT_S = 60  # the cluster, after the job's end, for its last logs


def files(cluster: Cluster, job: Job) -> dict[str, str]:
    """Name -> text of the manifests."""
    made = manifests(cluster, job, job.spec.read_text(encoding="utf-8"))
    return {f"{str(manifest['kind']).lower()}.yaml": written(manifest) for manifest in made}


def manifests(cluster: Cluster, job: Job, specification: str) -> list[Manifest]:
    """The ConfigMap, then the RayJob that mounts it."""
    return [config_map(cluster, job, specification), ray_job(cluster, job)]


def config_map(cluster: Cluster, job: Job, specification: str) -> Manifest:
    """The sweep's specification, as YAML text, and the script that the job runs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(cluster, job),
        "data": {"spec.yaml": specification, "sweep.sh": script(cluster, job)},
    }


def script(cluster: Cluster, job: Job) -> str:
    """What the job runs.

    A file, as KubeRay and Ray each take an entrypoint's words apart and join them again, and a `&&` in it would run
    what follows in the submitter's pod.
    """
    program, *options = job.arguments(f"{SPECIFICATION}/spec.yaml", cluster.overrides)
    pairs = [shlex.join(options[i : i + 2]) for i in range(0, len(options), 2)]
    return f"cd {REPOSITORY}\n" + " \\\n  ".join([f"exec python {program}", *pairs]) + "\n"


def ray_job(cluster: Cluster, job: Job) -> Manifest:
    """Every try is a new Ray cluster; the sweep goes on from its run folder, which is on S3 or on the claim."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(cluster, job),
        "spec": {
            "entrypoint": f"bash {SPECIFICATION}/sweep.sh",
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": SUBMITTER_TRIES},
            "submitterPodTemplate": submitter(cluster, label(job.name)),
            "backoffLimit": cluster.kubernetes.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "suspend": False,
            "rayClusterSpec": _ray_cluster(cluster, label(job.name)),
        },
    }


def label(name: str) -> str:
    """A sweep's name as Kubernetes takes one for a RayJob; with a digest where it had to be changed."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"sweep-{plain}".rstrip("-")
    if plain == name and len(plain) <= LONGEST_NAME:
        return plain
    digest = sha256(name.encode()).hexdigest()[:6]
    return f"{plain[: LONGEST_NAME - 7].rstrip('-')}-{digest}"


def written(manifest: Manifest) -> str:
    """A manifest as YAML."""
    return yaml.dump(manifest, Dumper=_Blocks, sort_keys=False, width=120)


def _metadata(cluster: Cluster, job: Job) -> Manifest:
    name = label(job.name)
    return {"name": name, "namespace": cluster.kubernetes.namespace, "labels": labels(name)}


def _ray_cluster(cluster: Cluster, name: str) -> Manifest:
    least = cluster.kubernetes.min_nodes
    ray: dict[str, Json] = {
        "rayVersion": version("ray"),  # the image has the same one: both are of constraints.txt
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # Trials and their ranks need CPUs, so none of them lands here: a lost worker never takes the driver along.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0", "num-gpus": "0"},
            "template": head(cluster, name),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": cluster.nodes,
                "minReplicas": cluster.nodes if least is None else least,
                "maxReplicas": cluster.nodes,
                "rayStartParams": {},
                "template": worker(cluster, name),
            }
        ],
    }
    if scales(cluster):
        ray["enableInTreeAutoscaling"] = True
        options: Manifest = {
            "idleTimeoutSeconds": IDLE_S,
            "resources": limited(AUTOSCALER),
            "securityContext": confined(),
        }
        ray["autoscalerOptions"] = options
    return ray


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Blocks.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
