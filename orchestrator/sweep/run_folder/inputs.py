"""The run folder as a whole: what it was made from, and whether it may be continued."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.weights import digest
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import write_file
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.spec.load import dump
from orchestrator.spec.messages import SpecError, shown
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder import records

INPUTS, SPEC = "inputs.json", "spec.yaml"
LIBRARIES = (
    *("torch", "torchvision", "compressai", "deepspeed", "ray", "mlflow", "numpy", "scipy", "bjontegaard"),
    *("optuna", "safetensors", "pillow", "s3fs", "boto3", "lic-distillery"),
)
# They may change between two starts; all other paths are compared by content.
PLACES = ("results", "store", "node_cache", "preemption")


def inputs_of(spec: Spec, train: Sequence[Photograph], validation: Sequence[Photograph]) -> dict[str, Any]:
    """What decides the sweep's results: the specification, with digests in the place of paths."""
    data: dict[str, Any] = json.loads(spec.model_dump_json(exclude=set(PLACES)))
    del data["training"]["micro_batch_size"]  # it changes roundings alone, and who ran out of memory sets another
    data["photographs"] |= {
        "train": [photograph.digest for photograph in train],
        "validation": [photograph.digest for photograph in validation],
    }
    for teacher in data["teachers"]:
        teacher["weights"] = digest(teacher["weights"]) if Path(teacher["weights"]).is_file() else teacher["weights"]
    for student in data["students"]:
        student["init"] = digest(student["init"]) if Path(student["init"]).is_file() else student["init"]
    return data


def open_folder(run: Store, spec: Spec, inputs: Mapping[str, Any]) -> bool:
    """Start the run folder, or make sure that it is this sweep's. True if it was there.

    Raises:
        SpecError: it holds another sweep; names the first field that differs.
    """
    before = records.read_json(run, INPUTS)
    if before is not None:
        where = _difference(before, inputs, ())
        if where:
            field, there, here = where
            line = f"{field}: {shown(here)} is not allowed: {run.url} holds a sweep with {shown(there)}"
            raise SpecError([f"{line}; give this one another name"])
        return True
    run.replace(SPEC, dump(spec).encode())
    write_file(run, VERSIONS, versions())
    records.write_json(run, INPUTS, inputs)  # last: from now on the folder is this sweep's
    return False


def versions() -> Versions:
    """Python, libraries, and the project's git revision (None outside a repository, as after `ray job submit`)."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        revision = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return Versions(
        python=platform.python_version(),
        platform=platform.platform(),
        git_revision=revision,
        libraries={name: version(name) for name in LIBRARIES},
    )


def _difference(before: Any, now: Any, path: tuple[str, ...]) -> tuple[str, Any, Any] | None:
    """Field, earlier and present value of the first difference."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        steps = [(key, before.get(key), now.get(key)) for key in dict.fromkeys([*now, *before])]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        steps = [(str(index), *pair) for index, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else (".".join(path), before, now)
    for key, old, new in steps:
        found = _difference(old, new, (*path, key))
        if found:
            return found
    return None
