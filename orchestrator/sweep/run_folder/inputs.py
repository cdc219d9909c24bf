"""The run folder as a whole: the inputs it was made from, and whether a sweep may continue it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from models.weights import digest
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import write_file
from orchestrator.results.format import INSTEAD, FormatError
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.spec.load import dump
from orchestrator.spec.messages import SpecError, shown
from orchestrator.spec.section import Section
from orchestrator.spec.sections import Training
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder import records

INPUTS, SPEC = "inputs.json", "spec.yaml"
LIBRARIES = (
    *("torch", "torchvision", "compressai", "deepspeed", "ray", "mlflow", "numpy", "scipy", "bjontegaard"),
    *("optuna", "safetensors", "pillow", "s3fs", "boto3", "lic-distillery"),
)
# Sections that may change between two starts of a sweep.
NOT_COMPARED = ("results", "store", "node_cache", "preemption")


def inputs_of(spec: Spec, train: Sequence[Photograph], validation: Sequence[Photograph]) -> dict[str, JsonValue]:
    """The inputs that decide the sweep's results: the specification, with digests in place of paths.

    Args:
        spec: of the sweep.
        train, validation: its photographs.
    """
    data: dict[str, Any] = json.loads(spec.model_dump_json(exclude=set(NOT_COMPARED)))
    data["training"] = training_inputs(spec.training)
    data["photographs"] |= {
        "train": PhotographTable.of(train).identity,
        "validation": PhotographTable.of(validation).identity,
    }
    for teacher in data["teachers"]:
        teacher["weights"] = digest(teacher["weights"]) if Path(teacher["weights"]).is_file() else teacher["weights"]
    for student in data["students"]:
        student["init"] = digest(student["init"]) if Path(student["init"]).is_file() else student["init"]
    return data


def training_inputs(training: Training) -> dict[str, JsonValue]:
    """The section as `inputs_of` has it."""
    # a micro-batch changes only rounding, and is lowered after running out of memory
    data: dict[str, JsonValue] = json.loads(training.model_dump_json(exclude={"micro_batch_size"}))
    return data


def sweep_id(inputs: dict[str, JsonValue]) -> str:
    """What tells sweeps of one name apart: SHA-256 of the inputs, hex. It does not depend on where files lie.

    Args:
        inputs: from `inputs_of`.
    """
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def open_folder(run: Store, spec: Section, inputs: dict[str, JsonValue], what: str = "sweep") -> bool:
    """Create the run folder, or check that it belongs to this sweep.

    Args:
        run: the run folder.
        spec: of the sweep, or the recipe of a teacher.
        inputs: from `inputs_of`, or another value that decides the results.
        what: makes the folder, for messages.

    Returns:
        Whether the folder was there before.

    Raises:
        SpecError, FormatError: as `check_inputs`.
    """
    begun = check_inputs(run, inputs, what)
    if not begun or not run.exists(SPEC):
        run.replace(SPEC, dump(spec).encode())
    if not begun:
        write_file(run, VERSIONS, versions())
        records.write_json(run, INPUTS, inputs)  # last: its presence makes the folder this sweep's
    return begun


def check_inputs(run: Store, inputs: dict[str, JsonValue], what: str = "sweep") -> bool:
    """Whether there is a run folder, after a look at whose it is; writes nothing.

    Args:
        run, inputs, what: see `open_folder`.

    Raises:
        SpecError: it holds another one; the message names the first field that differs.
        FormatError: its file of inputs is cut off, or foreign, or a folder lies where one of its files goes.
    """
    check_files(run)
    if not run.exists(INPUTS):
        return False
    stored = records.read_json(run, INPUTS)
    if not isinstance(stored, dict):
        raise FormatError(f"{run.url}/{INPUTS}: {shown(stored)} is not a {what}'s inputs: {INSTEAD}")
    difference = _difference(stored, inputs, ())
    if difference:
        field, old, new = difference
        line = f"{field}: {shown(new)} is not allowed: {run.url} holds a {what} with {shown(old)}"
        raise SpecError([f"{line}; give this one another name"])
    return True


def check_files(run: Store) -> None:
    """Raises FormatError if a folder lies where a file of the run folder goes: of its folders, none has an ending."""
    entries = sorted(run.folder.iterdir()) if run.folder is not None and run.folder.is_dir() else []
    for entry in entries:
        if entry.is_dir() and entry.suffix:
            raise FormatError(f"{run.url}/{entry.name}: a folder, where a file goes: give this one another name")


def versions() -> Versions:
    """Versions of Python and libraries, and the git revision (None outside a repository, as after `ray job submit`)."""
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


def _difference(before: JsonValue, now: JsonValue, path: tuple[str, ...]) -> tuple[str, JsonValue, JsonValue] | None:
    """Field, earlier value and present value of the first difference below a path."""
    if isinstance(before, dict) and isinstance(now, dict):
        steps = [(key, before.get(key), now.get(key)) for key in dict.fromkeys([*now, *before])]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        steps = [(str(index), *pair) for index, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else (".".join(path), before, now)
    for key, old, new in steps:
        difference = _difference(old, new, (*path, key))
        if difference:
            return difference
    return None
