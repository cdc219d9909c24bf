"""Rendered manifests: against KubeRay's own CRDs and Kubernetes' schemas, with planted problems, and for what they say.

No cluster has run them: none can be had here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from clusters.kubernetes import check, files
from clusters.kubernetes.manifests import LONGEST_NAME, label, script
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from tests.clusters.crd_schema import problems
from tests.clusters.descriptions import KUSTOMIZED, QUICKSTART, ROOT, cluster, job

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in KUSTOMIZED},
    "no autoscaler": ("many-nodes", ("kubernetes.min_nodes=8",)),
    "scales to nothing": ("one-gpu-node", ("kubernetes.min_nodes=0",)),
    "bare": (
        "cpu-test",
        ("results=s3://bucket/runs", "store=s3://bucket/store", "mlflow=http://m:5000", "kubernetes={}"),
    ),
    "network": ("many-nodes", ("interface=ib0", "kubernetes.claim={name: photographs, path: /photographs}")),
}


def rendered(variant: str) -> dict[str, dict[str, Any]]:
    """kind -> manifest, as it is read back from the text that kubectl gets."""
    name, overrides = VARIANTS[variant]
    texts = files(cluster(name, *overrides), job())
    return {made["kind"]: made for made in map(yaml.safe_load, texts.values())}


@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_are_what_kuberay_and_kubernetes_take(variant: str) -> None:
    made = rendered(variant)
    assert set(made) == {"ConfigMap", "RayJob"}
    assert [problems(manifest) for manifest in made.values()] == [[], []]


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_a_head_that_scales_may_ask_the_api_server(variant: str) -> None:
    """A token of the API server in a pod is one that its programs can be robbed of."""
    spec = rendered(variant)["RayJob"]["spec"]
    pods = {
        "submitter": spec["submitterPodTemplate"]["spec"],
        "head": spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"],
        "worker": spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"],
    }
    scaled = bool(spec["rayClusterSpec"].get("enableInTreeAutoscaling"))
    mounted = {name: pod["automountServiceAccountToken"] for name, pod in pods.items()}
    assert mounted == {"submitter": False, "head": scaled, "worker": False}


def at(manifest: Any, path: str) -> Any:
    """What a path such as spec.containers.0 leads to."""
    for part in path.split("."):
        manifest = manifest[int(part) if part.isdigit() else part]
    return manifest


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    parent, _, key = path.rpartition(".")

    def plant(manifest: dict[str, Any]) -> None:
        target: Any = at(manifest, parent) if parent else manifest
        target[int(key) if key.isdigit() else key] = value

    return plant


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    parent, _, key = path.rpartition(".")
    return lambda manifest: at(manifest, parent).__delitem__(key)


def rename(path: str, wrong: str) -> Callable[[dict[str, Any]], None]:
    parent, _, key = path.rpartition(".")

    def plant(manifest: dict[str, Any]) -> None:
        at(manifest, parent)[wrong] = at(manifest, parent).pop(key)

    return plant


HEAD = "spec.rayClusterSpec.headGroupSpec.template"
WORKERS = "spec.rayClusterSpec.workerGroupSpecs.0"
PLANTED: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "a field's name": ("RayJob", rename("spec.rayClusterSpec.rayVersion", "rayVersoin")),
    "replicas as text": ("RayJob", put(f"{WORKERS}.replicas", "8")),
    "no containers": ("RayJob", drop(f"{WORKERS}.template.spec.containers")),
    "no head": ("RayJob", drop("spec.rayClusterSpec.headGroupSpec")),
    "no group name": ("RayJob", drop(f"{WORKERS}.groupName")),
    "another version": ("RayJob", put("apiVersion", "ray.io/v1beta1")),
    "another kind": ("RayJob", put("kind", "RayJobs")),
    "a mode of authentication": ("RayJob", put("spec.rayClusterSpec.authOptions.mode", "tokens")),
    "authentication of the job": ("RayJob", put("spec.authOptions", {"mode": "token"})),
    "a start parameter as number": ("RayJob", put("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0)),
    "a retry as text": ("RayJob", put("spec.backoffLimit", "2")),
    "metadata": ("RayJob", rename("metadata.labels", "lables")),
    "the pod's grace": ("RayJob", rename(f"{HEAD}.spec.terminationGracePeriodSeconds", "terminationGracePeriod")),
    "a number as an environment value": ("RayJob", put(f"{HEAD}.spec.containers.0.env.0.value", 1)),
    "a hook without exec": ("RayJob", put(f"{HEAD}.spec.containers.0.lifecycle.preStop", {"command": ["true"]})),
    "a capability as text": (
        "RayJob",
        put(f"{WORKERS}.template.spec.containers.0.securityContext.capabilities.drop", "ALL"),
    ),
    "a volume of no kind": ("RayJob", put(f"{WORKERS}.template.spec.volumes.0", {"name": "node-disk", "emptydir": {}})),
    "a claim's name": (
        "RayJob",
        put(f"{WORKERS}.template.spec.volumes.0", {"name": "x", "persistentVolumeClaim": {"name": "y"}}),
    ),
    "a pod's label as number": ("RayJob", put(f"{WORKERS}.template.metadata.labels.tries", 3)),
    "a submitter without an image's name": (
        "RayJob",
        put("spec.submitterPodTemplate.spec.containers.0", {"image": "lic-distillery"}),
    ),
    "data that is no text": ("ConfigMap", put("data.trials", 12)),
    "a ConfigMap with a spec": ("ConfigMap", put("spec", {})),
    "another version of a core kind": ("ConfigMap", put("apiVersion", "v2")),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_problem_is_caught(planted: str) -> None:
    kind, plant = PLANTED[planted]
    manifest = rendered("many-nodes")[kind]
    plant(manifest)
    assert problems(manifest)


def test_no_secret_of_the_environment_is_in_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
        "AWS_SECRET_ACCESS_KEY": "planted/secret+key",
        "AWS_SESSION_TOKEN": "planted-session",
        "MLFLOW_TRACKING_PASSWORD": "planted-password",
        "RAY_AUTH_TOKEN": "planted-token",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for name, overrides in VARIANTS.values():
        text = "".join(files(cluster(name, *overrides), job("trials=2")).values())
        assert not [value for value in secrets.values() if value in text]
        assert "planted" not in text.lower()


def test_the_head_trains_nothing_and_is_never_on_a_spot_node() -> None:
    spec = rendered("many-nodes")["RayJob"]["spec"]["rayClusterSpec"]
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    pod, worker = head["template"]["spec"], workers["template"]["spec"]
    (term,) = at(pod, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms")
    assert term["matchExpressions"] == [{"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]}]
    assert "nodeSelector" not in pod and "tolerations" not in pod
    assert worker["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (1, 8, 8)
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["idleTimeoutSeconds"] >= 600


def test_graces_fit_into_each_other() -> None:
    """The trials' saving < the driver's end < Ray's < Kubernetes' SIGKILL, on the head as on the workers."""
    described = cluster("many-nodes")
    made = rendered("many-nodes")
    spec = made["RayJob"]["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"]["template"]["spec"], spec["workerGroupSpecs"][0]["template"]["spec"]]
    saving = float(made["ConfigMap"]["data"]["sweep.sh"].split("preemption.grace_s=")[1].split()[0])
    head, worker = ({variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]} for pod in pods)
    hook = float(at(pods[0], "containers.0.lifecycle.preStop.exec.command")[-1])
    assert saving < hook <= described.grace_s < pods[0]["terminationGracePeriodSeconds"]
    assert saving < float(worker["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < pods[1]["terminationGracePeriodSeconds"]
    assert saving < float(head["RAY_JOB_STOP_WAIT_TIME_S"])


def test_every_pod_is_restricted() -> None:
    """What the Pod Security Standard "restricted" asks for."""
    spec = rendered("many-nodes")["RayJob"]["spec"]
    cluster_spec = spec["rayClusterSpec"]
    templates = [spec["submitterPodTemplate"], cluster_spec["headGroupSpec"]["template"]]
    for template in [*templates, cluster_spec["workerGroupSpecs"][0]["template"]]:
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_script_gives_python_the_words_that_the_user_gave(tmp_path: Any) -> None:
    """Blanks, quotes and dollars in overrides: run by bash, with a python that prints its arguments."""
    words = ("name=it's", "losses=[{latent: 0.1}, feds]", "students.0.init=$HOME/x; `y` && z")
    made = script(cluster("cpu-test"), job(*words))
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys, json; print(json.dumps(sys.argv[1:]))" "$@"\n')
    fake.chmod(0o755)
    line = made.replace("cd /opt/lic-distillery", f"cd '{tmp_path}'; PATH=.:$PATH")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    seen = yaml.safe_load(done.stdout)
    assert seen[:3] == ["jobs/sweep_feds.py", "--spec", "/etc/lic-distillery/spec.yaml"]
    assert seen[3::2] == ["--set"] * 7 and tuple(seen[4::2][-3:]) == words


def test_names_are_labels_and_differ() -> None:
    names = ["quickstart", "Quickstart", "a.b", "a-b", "2-small", "x" * 80, "x" * 81, "_"]
    labels = [label(name) for name in names]
    assert labels[0] == "quickstart" and labels[3] == "a-b"
    assert len(set(labels)) == len(names)
    for text in labels:
        assert len(text) <= LONGEST_NAME and text[0].isalpha() and text == text.strip("-").lower()


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "no image": (("image=null",), (), "image: nothing is not allowed: a container image, see"),
    "results on a pod": (
        ("results=/tmp/runs",),
        (),
        "results: '/tmp/runs' is not allowed: s3://bucket/prefix, or",
    ),
    "out of the claim": (("store=/data/../store",), (), "store: '/data/../store' is not allowed"),
    "photographs at home": ((), ("photographs.train=/home/me/photos",), "photographs.train: '/home/me/photos' is not"),
    "weights at home": ((), ("teachers.0.weights=~/t.safetensors",), "teachers.0.weights: '~/t.safetensors' is not"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_pods_could_not_do_is_refused(case: str) -> None:
    on, given, line = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        check(cluster("cpu-test", *on), load_spec(QUICKSTART, given))
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith(line)


def test_what_pods_can_do_is_not_refused() -> None:
    for name in KUSTOMIZED:
        check(cluster(name), load_spec(QUICKSTART))
    given = ("photographs.train=/data/photographs", "teachers.0.weights=zoo:bmshj2018-hyperprior")
    check(cluster("cpu-test"), load_spec(QUICKSTART, given))
    check(cluster("cpu-test"), load_spec(QUICKSTART, ("photographs.train=/opt/lic-distillery/data/quickstart/train",)))


def test_a_dry_run_prints_the_manifests() -> None:
    command = [sys.executable, "jobs/launch.py", "kubernetes", "--cluster", "clusters/specs/one-gpu-node.yaml"]
    done = subprocess.run(
        [*command, "--spec", "jobs/specs/quickstart.yaml", "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [manifest["kind"] for manifest in yaml.safe_load_all(done.stdout.replace("# --- ", "---\n# "))] == [
        "ConfigMap",
        "RayJob",
    ]
