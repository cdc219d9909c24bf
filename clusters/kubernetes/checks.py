"""What can be seen to be wrong before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from clusters.description import Cluster
from clusters.kubernetes.pods import REPOSITORY
from orchestrator.spec.messages import SpecError
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec
from orchestrator.store.place import local_folder


def check(cluster: Cluster, spec: Spec) -> None:
    """Raises SpecError for what pods could not run, find or keep."""
    problems = [*_places(cluster), *_inputs(cluster, spec)]
    if not cluster.image:
        problems.insert(0, refusal("image", None, "a container image, see clusters/kubernetes/Dockerfile"))
    if problems:
        raise SpecError(problems)


def _places(cluster: Cluster) -> Iterator[str]:
    """A pod's own disk goes with the pod, and another pod never sees it."""
    claim = cluster.kubernetes.claim
    kept = "s3://bucket/prefix" + (f", or below {claim.path}" if claim else ", or below kubernetes.claim.path")
    for field, place in (("results", cluster.results), ("store", cluster.store)):
        folder = local_folder(place)
        if folder and not (claim and _below(str(folder), claim.path)):
            yield refusal(field, place, kept)


def _inputs(cluster: Cluster, spec: Spec) -> Iterator[str]:
    """Relative paths are those of the repository in the image; of absolute ones a pod has but two."""
    claim = cluster.kubernetes.claim
    roots = (REPOSITORY, *((claim.path,) if claim else ()))
    allowed = "a path in the repository (which is in the image)"
    allowed += f", or below {claim.path}" if claim else ", or a kubernetes.claim that holds it"
    inputs = [(f"photographs.{name}", getattr(spec.photographs, name)) for name in ("train", "validation")]
    inputs += [(f"teachers.{i}.weights", teacher.weights) for i, teacher in enumerate(spec.teachers)]
    inputs += [(f"students.{i}.init", student.init) for i, student in enumerate(spec.students)]
    for field, place in inputs:
        path = place.removeprefix("file://")
        if path.startswith(("/", "~", "../")) and not any(_below(path, root) for root in roots):
            yield refusal(field, place, allowed)


def _below(path: str, root: str) -> bool:
    return ".." not in PurePosixPath(path).parts and PurePosixPath(path).is_relative_to(root)
