"""KubeRay's own CRDs as strict JSON schemas, and the check of a manifest that needs no API server.

An API server drops a field that a CRD does not know, unless it is asked to be strict; here it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.32"
Schema = dict[str, Any]


def crds() -> Path:
    """The folder of KubeRay's CRDs (Apache-2.0, of its release, not kept here), or the test is skipped."""
    folder = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "reference" / "kuberay-crds"))
    if not (folder / "ray.io_rayjobs.yaml").is_file():
        pytest.skip(f"no CRDs of KubeRay: neither in KUBERAY_CRDS nor in {folder}")
    return folder


def strict(schema: Schema) -> Schema:
    """A structural schema of a CRD as JSON schema: unknown fields are refused, unless the CRD keeps them."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "nullable"}
    made.pop("default", None)
    if "properties" in made:
        made["properties"] = {name: strict(property_) for name, property_ in made["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = strict(made[key])
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if schema.get("nullable"):
        return {"anyOf": [made, {"type": "null"}]}
    return made


@cache
def _of_kuberay(kind: str) -> dict[str, Schema]:
    """apiVersion -> strict schema; none for a kind that KubeRay does not have."""
    path = crds() / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        return {}
    spec = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]
    needed = {"required": ["apiVersion", "kind", "metadata", "spec"]}
    return {
        f"{spec['group']}/{version['name']}": strict(version["schema"]["openAPIV3Schema"]) | needed
        for version in spec["versions"]
        if version["served"] and spec["names"]["kind"] == kind
    }


def problems(manifest: dict[str, Any]) -> list[str]:
    """A line for everything that is wrong; pod templates of KubeRay's kinds are checked as Kubernetes' own as well."""
    if not str(manifest.get("apiVersion")).startswith("ray.io/"):
        return list(_of_core(manifest))
    schema = _of_kuberay(str(manifest.get("kind"))).get(manifest["apiVersion"])
    if schema is None:
        return [f"KubeRay has no {manifest['apiVersion']} {manifest.get('kind')}"]
    wrong = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    lines = [f"{error.json_path}: {error.message[:200]}" for error in wrong]
    # A CRD says of its own metadata that it is an object, and no more.
    lines += _of_core({"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest.get("metadata")})
    for template in _templates(manifest):
        lines += _of_core({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {}, "template": template})
    return lines


def _templates(manifest: dict[str, Any]) -> Iterator[Any]:
    spec = manifest.get("spec", {})
    cluster = spec.get("rayClusterSpec", spec)
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]
    for group in (cluster.get("headGroupSpec"), *cluster.get("workerGroupSpecs", ())):
        if isinstance(group, dict) and "template" in group:
            yield group["template"]


def _of_core(manifest: dict[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message[:200]}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield str(error.message)
