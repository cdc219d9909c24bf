"""The local paths of a specification: made absolute, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.spec.messages import SpecError, shown
from orchestrator.spec.section import refusal
from orchestrator.spec.sections import STARTS, Photographs

JOB_COPY = "/runtime_resources/working_dir_files/"  # in the path of what `ray job submit --working-dir` has uploaded


def absolute(path: str, base: str | Path) -> str:
    """A local path made absolute, from `base` where it is relative; a URL, a zoo name, an init's keyword stay as is.

    Raises SpecError: a folder on the way, such as the present one, has a name that is not UTF-8. Files of a run could
    not name it.
    """
    if "://" in path or path.startswith("zoo:") or path in STARTS:
        return path
    try:
        found = str((Path(base) / Path(path).expanduser()).resolve())
    except RuntimeError as error:  # no home folder, or links in a circle
        raise SpecError([f"{shown(path)} is not allowed: a path that leads somewhere ({error})"]) from None
    if not _is_text(found):
        raise SpecError([f"path {refusal(path, found, 'a path in UTF-8')}"])
    return found


def _is_text(path: str) -> bool:
    """Whether a path is UTF-8: Python keeps a byte that is not as half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def kept(field: str, place: str) -> Iterator[str]:
    """A line for a place that is written to, if it is in the copy of a folder that a Ray job runs in."""
    if JOB_COPY in place:
        yield refusal(field, place, "a folder that stays, such as /shared/runs, or a URL: Ray removes a job's folder")


def missing_folders(photographs: Photographs) -> list[str]:
    """One line for each local folder of photographs that does not exist."""
    folders = (("train", photographs.train), ("validation", photographs.validation))
    return [
        refusal(f"photographs.{field}", place, "a folder that exists")
        for field, place in folders
        if not place.startswith("s3://") and not Path(place.removeprefix("file://")).is_dir()
    ]
