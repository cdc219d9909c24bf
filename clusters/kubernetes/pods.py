"""The pods of a sweep: Ray's head, which runs the driver and trains nothing, the workers, and the submitter of the job.

Each is allowed by the Pod Security Standard "restricted".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from clusters.description import Cluster

Json: TypeAlias = "str | int | float | Sequence[Json] | Mapping[str, Json] | None"
Manifest = Mapping[str, Json]  # an object of Kubernetes or a part of one, as YAML has it

REPOSITORY = "/opt/lic-distillery"  # in the image, see Dockerfile
SPECIFICATION = "/etc/lic-distillery"  # where the ConfigMap is seen
USER = 1000  # of the image

HEAD = {"cpu": "2", "memory": "8G"}
SUBMITTER = {"cpu": "1", "memory": "1G"}  # it only follows a log
AUTOSCALER = {"cpu": "500m", "memory": "1G"}

AFTER_DRIVER_S = 20  # of the head's grace, once the driver is gone: see leave.py; and for Ray's daemons
BEFORE_KILL_S = 5  # of a worker's grace, for Ray's daemons


def labels(name: str) -> Manifest:
    """Of everything that belongs to a sweep."""
    return {"app.kubernetes.io/name": "lic-distillery", "app.kubernetes.io/instance": name}


def confined() -> Manifest:
    """A container's securityContext."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def limited(resources: Manifest) -> Manifest:
    """Requests equal limits: Ray counts the limits, and a pod of the class Guaranteed is evicted last."""
    return {"requests": dict(resources), "limits": dict(resources)}


def head(cluster: Cluster, name: str) -> Manifest:
    """Its preStop hook ends the sweep's driver ahead of Ray's daemons: saved, and with exit code 75.

    Not `ray job stop`, which leaves the job STOPPED: KubeRay takes that for an end, and a job that left with 75 for a
    failure, which it tries again. RAY_JOB_STOP_WAIT_TIME_S is for `kubectl delete rayjob`, where KubeRay does stop it.
    """
    settings = {"RAY_JOB_STOP_WAIT_TIME_S": cluster.grace_s, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": 0}
    mount: Manifest = {"name": "specification", "mountPath": SPECIFICATION, "readOnly": True}
    container = _ray_container(cluster, "ray-head", settings, HEAD, mount)
    container["ports"] = [{"name": "gcs-server", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}]
    hook = ["python", f"{REPOSITORY}/clusters/kubernetes/leave.py", str(cluster.grace_s)]
    container["lifecycle"] = {"preStop": {"exec": {"command": hook}}}
    volume: Manifest = {"name": "specification", "configMap": {"name": name}}
    # KubeRay's autoscaler, a container beside Ray's, speaks to the API server; nothing else here does.
    pod = _pod(cluster, container, volume, cluster.grace_s + AFTER_DRIVER_S, api=scales(cluster))
    if cluster.kubernetes.spot:
        never = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in cluster.kubernetes.spot.items()]
        required = {"nodeSelectorTerms": [{"matchExpressions": never}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return {"metadata": {"labels": labels(name)}, "spec": pod}


def worker(cluster: Cluster, name: str) -> Manifest:
    """On SIGTERM Ray marks the node as draining and waits: trials with ranks there save in that time."""
    settings = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": cluster.grace_s - BEFORE_KILL_S}
    resources = {"cpu": str(cluster.cpus_per_node), "memory": f"{cluster.memory_gb_per_node}G"}
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in cluster.kubernetes.tolerations]
    if cluster.gpus_per_node:
        resources["nvidia.com/gpu"] = str(cluster.gpus_per_node)
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    # Ray's object store, and NCCL between the GPUs of a node; the runtime's own /dev/shm has 64 MB.
    mount = {"name": "shared-memory", "mountPath": "/dev/shm"}
    half = f"{max(1, cluster.memory_gb_per_node // 2)}G"
    volume: Manifest = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": half}}
    container = _ray_container(cluster, "ray-worker", settings, resources, mount)
    pod = _pod(cluster, container, volume, cluster.grace_s, api=False)
    selector = {**cluster.kubernetes.node_selector, **cluster.kubernetes.spot}
    if selector:
        pod["nodeSelector"] = selector
    if tolerations:
        pod["tolerations"] = tolerations
    return {"metadata": {"labels": labels(name)}, "spec": pod}


def submitter(cluster: Cluster, name: str) -> Manifest:
    """KubeRay's own template has no securityContext, which a restricted namespace refuses; the command is KubeRay's."""
    container = {
        "name": "ray-job-submitter",
        "image": cluster.image,
        "resources": limited(SUBMITTER),
        "securityContext": confined(),
    }
    pod = {**_identity(cluster, api=False), "restartPolicy": "Never", "containers": [container]}
    return {"metadata": {"labels": labels(name)}, "spec": pod}


def scales(cluster: Cluster) -> bool:
    """Whether the number of workers follows the trials that wait."""
    least = cluster.kubernetes.min_nodes
    return least is not None and least < cluster.nodes


def _ray_container(
    cluster: Cluster, name: str, settings: Mapping[str, int], resources: Manifest, mount: Manifest
) -> dict[str, Json]:
    """`mount` is beside those of the node's disk and of the claim; `settings` are Ray's, as environment variables."""
    environment = cluster.environment | {key: str(value) for key, value in settings.items()}
    mounts: list[Manifest] = [{"name": "node-disk", "mountPath": cluster.node_disk}]
    if cluster.kubernetes.claim:
        mounts.append({"name": "claim", "mountPath": cluster.kubernetes.claim.path})
    container: dict[str, Json] = {
        "name": name,
        "image": cluster.image,
        "env": [{"name": key, "value": environment[key]} for key in sorted(environment)],
        "resources": limited(resources),
        "securityContext": confined(),
        "volumeMounts": [*mounts, mount],
    }
    if cluster.kubernetes.secret:
        container["envFrom"] = [{"secretRef": {"name": cluster.kubernetes.secret}}]
    return container


def _pod(cluster: Cluster, container: Manifest, volume: Manifest, grace_s: int, *, api: bool) -> dict[str, Json]:
    """`volume` is beside the node's disk and the claim."""
    volumes: list[Manifest] = [{"name": "node-disk", "emptyDir": {}}]
    if cluster.kubernetes.claim:
        claim = {"claimName": cluster.kubernetes.claim.name}
        volumes.append({"name": "claim", "persistentVolumeClaim": claim})
    return {
        **_identity(cluster, api=api),
        "terminationGracePeriodSeconds": grace_s,
        "containers": [container],
        "volumes": [*volumes, volume],
    }


def _identity(cluster: Cluster, *, api: bool) -> Manifest:
    """Who a pod is, to its node and (`api`) to the API server. Ray's token comes from a Secret of KubeRay's."""
    identity: dict[str, Json] = {
        "automountServiceAccountToken": api,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # a claim with a million photographs is not gone through each time
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if cluster.kubernetes.service_account:
        identity["serviceAccountName"] = cluster.kubernetes.service_account
    return identity
