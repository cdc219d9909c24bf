"""The overlays give what the renderer gives, and the services are what Kubernetes takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from clusters.kubernetes.manifests import manifests
from testing.kubectl import kustomize
from tests.clusters.crd_schema import problems
from tests.clusters.descriptions import KUSTOMIZED, QUICKSTART, ROOT, cluster, job

KUBERNETES = ROOT / "clusters" / "kubernetes"


@pytest.mark.parametrize("overlay", KUSTOMIZED)
def test_an_overlay_gives_what_the_renderer_gives(overlay: str) -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    given = list(yaml.safe_load_all(kustomize(KUBERNETES / "overlays" / overlay)))
    assert {manifest["kind"]: manifest for manifest in given} == {
        manifest["kind"]: manifest for manifest in manifests(cluster(overlay), job(), text)
    }
    assert [problems(manifest) for manifest in given] == [[], []]


def test_the_services_are_what_kubernetes_takes() -> None:
    given = list(yaml.safe_load_all(kustomize(KUBERNETES / "services")))
    kinds = [manifest["kind"] for manifest in given]
    assert len(given) == 8 and {"Deployment", "StatefulSet", "NetworkPolicy"} < set(kinds)
    assert [problems(manifest) for manifest in given] == [[]] * 8
    assert [manifest["spec"]["type"] for manifest in given if manifest["kind"] == "Service"] == ["ClusterIP"] * 2
    assert "Secret" not in kinds
    pods = [manifest["spec"]["template"]["spec"] for manifest in given if "template" in manifest.get("spec", {})]
    assert [pod["automountServiceAccountToken"] for pod in pods] == [False, False]  # they ask nothing of the API server


RETRIES = "op: replace, path: /spec/backoffLimit, value: 1"
PLANTED = {
    "a field's name": (RETRIES, "op: replace, path: /spec/rayClusterSpec/rayVersoin, value: 2.60.0"),
    "a wrong type": (RETRIES, 'op: replace, path: /spec/backoffLimit, value: "1"'),
    "a volume": ("persistentVolumeClaim: {claimName:", "persistentVolumeClaim: {claim:"),
    "a mount": ("{name: claim, mountPath: /data}", "{name: claim, path: /data}"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_problem_planted_in_a_patch_is_caught(planted: str, tmp_path: Path) -> None:
    right, wrong = PLANTED[planted]
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    patch = tmp_path / "kubernetes" / "overlays" / "cpu-test" / "rayjob.yaml"
    text = patch.read_text(encoding="utf-8")
    assert right in text
    patch.write_text(text.replace(right, wrong), encoding="utf-8")
    given = yaml.safe_load_all(kustomize(patch.parent))
    assert [line for manifest in given for line in problems(manifest)]


def test_a_service_with_a_planted_problem_is_caught() -> None:
    given = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in yaml.safe_load_all(kustomize(KUBERNETES / "services"))
    }
    deployment, claim = given["Deployment", "mlflow"], given["PersistentVolumeClaim", "mlflow"]
    deployment["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    claim["spec"]["accessModes"] = "ReadWriteOnce"
    assert problems(deployment) and problems(claim)
