"""teacher.json in a run folder: how far a teacher's training has come, and who trains it.

Only the process whose token it holds changes it, by compare and swap, so a process that lost the folder to another
changes nothing. A checkpoint counts once the record names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.files import read_file
from orchestrator.results.format import ResultFile, StrictModel, parse, serialised
from orchestrator.spec.recipe import Recipe
from orchestrator.store.store import Store
from orchestrator.store.tries import tries
from orchestrator.sweep.run_folder.records import NotOwner
from orchestrator.teacher.plan import weights_file
from orchestrator.trials.record import Checkpoint

RECORD, LOG = "teacher.json", "log.jsonl"


class Check(StrictModel):
    """What a training measured after `checkpoint_every` images."""

    images_seen: int
    losses: dict[str, float]  # term -> mean over the steps since the check before
    seconds: float  # of these steps
    points: tuple[CurvePoint, ...]  # on the validation crops, rates estimated


class TeacherRecord(ResultFile):
    """Of one training."""

    format: Literal[1] = 1
    owner: str  # token of the process that trains
    images_seen: int = 0  # how far the saved work reaches
    checkpoint: Checkpoint | None = None
    checks: tuple[Check, ...] = ()
    weights_sha256: str | None = None  # of the weights at the last check

    def changed(self, **fields: Any) -> TeacherRecord:
        """A copy with other values. Raises ValidationError."""
        return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | fields)

    def log(self) -> bytes:
        """The checks as JSON lines."""
        rows = [
            {
                "images_seen": check.images_seen,
                **check.losses,
                "seconds": check.seconds,
                "points": [point.to_json() for point in check.points],
            }
            for check in self.checks
        ]
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def read_record(run: Store) -> TeacherRecord | None:
    """The record; None if nothing was begun. Raises FormatError, StoreError."""
    return read_file(run, RECORD, TeacherRecord)


def weights_intact(run: Store, recipe: Recipe, record: TeacherRecord) -> bool:
    """Whether the weights are those of the last check. Raises StoreError."""
    try:
        return hashlib.sha256(run.read(weights_file(recipe))).hexdigest() == record.weights_sha256
    except FileNotFoundError:
        return False


def claim(run: Store, token: str) -> TeacherRecord:
    """Make a process the owner of a training, new or begun; from now on earlier owners change nothing.

    Raises FormatError, StoreError.
    """
    fresh = TeacherRecord(owner=token)
    if run.publish(RECORD, serialised(fresh)) is not None:
        return fresh
    return _change(run, lambda current: current.changed(owner=token))


def update(run: Store, token: str, **fields: Any) -> TeacherRecord:
    """Change fields of the record. Raises NotOwner, FormatError, StoreError."""

    def as_owner(current: TeacherRecord) -> TeacherRecord:
        check_owner(run, current, token)
        return current.changed(**fields)

    return _change(run, as_owner)


def check_owner(run: Store, current: TeacherRecord | None, token: str) -> None:
    """Raises NotOwner if another process trains this teacher now."""
    if current is None or current.owner != token:
        raise NotOwner(f"{run.url} was taken over by another process")


def _change(run: Store, change: Callable[[TeacherRecord], TeacherRecord]) -> TeacherRecord:
    for _ in tries(f"{run.url}/{RECORD}"):
        stored = run.read_stamped(RECORD)
        after = change(parse(stored.data, TeacherRecord, f"{run.url}/{RECORD}"))
        data = serialised(after)
        if data == stored.data or run.replace_if(RECORD, data, stored.tag) is not None:
            return after
        if run.read(RECORD) == data:  # the answer to our own request was lost
            return after
    raise AssertionError("unreachable")
