"""Writes the trials' files of a run folder: they are what a sweep resumes from. Tune's own records are not read.

A process of a sweep that takes a run folder over puts its token into owner.json, and into each trial's file before it
goes on with the trial. A trial's file is changed only by the process whose token is the last in it, and only over the
very content that was read. So a process that was taken over, or lost its trial to another, changes nothing by whatever
it still writes: it finds another token there, raises NotOwner, and ends.

Checkpoints and weights have paths that no other process and no other moment has. They are deleted when no trial's file
names them, and only if they carry a token that the file as written by this process knows: those of later processes
it does not.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.evaluation.complexity import Complexity
from orchestrator.spec.trial import Trial
from orchestrator.store.errors import StoreError
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import Report
from orchestrator.trials.files import trial_file
from orchestrator.trials.record import Decision, Rung, TrialRecord

OWNER = "owner.json"  # names the process that runs the sweep
TRIES = 10  # to change a file that others of the same process change, too: the driver and a trial's own processes


class NotOwner(RuntimeError):
    """The run folder, or a trial of it, belongs to another process by now."""


def read_json(store: Store, name: str) -> Any | None:
    """The value in a file; None if there is no such file."""
    try:
        return json.loads(store.read(name))
    except FileNotFoundError:
        return None


def write_json(store: Store, name: str, value: Any) -> None:
    """Replaces the file atomically. Raises ValueError for what is no JSON, such as NaN."""
    store.replace(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def take_over(run: Store, token: str) -> None:
    """From now on only processes that carry this token may write; trials become this one's by `claim`."""
    write_json(run, OWNER, {"token": token})


def check_owner(run: Store, token: str) -> None:
    """Raises NotOwner if the run folder was taken over: after a driver's SIGKILL its trials live on for a moment."""
    owner = read_json(run, OWNER)
    if owner != {"token": token}:
        raise NotOwner(f"{run.url} was taken over by another process")


def weights_file(trial_id: str, images: int, token: str) -> str:
    """A path for a trial's weights that no other process and no other moment has."""
    return f"weights/{trial_id}/{images}-{secrets.token_hex(4)}-{token}.safetensors"


def checkpoint_folder(trial_id: str, images: int, token: str) -> str:
    """A path for a trial's checkpoint that no other process and no other moment has."""
    return f"checkpoints/{trial_id}/{images}-{secrets.token_hex(4)}-{token}"


def fresh(trial: Trial, size: Complexity, token: str) -> TrialRecord:
    """A trial that has reached no rung; `size` is its student's."""
    return TrialRecord(
        **{name: getattr(trial, name) for name in Trial.model_fields},
        owners=(token,),
        params=size.params,
        macs_per_pixel=size.macs_per_pixel,
    )


def begin(run: Store, trial: Trial, size: Complexity, token: str) -> TrialRecord:
    """Have the trial run: its file, as `fresh` or as it was left. Its paths are those of this start's specification.

    Raises:
        NotOwner: the run folder was taken over.
    """
    check_owner(run, token)
    record = fresh(trial, size, token)
    if run.publish(trial_file(trial.trial_id), record.to_json()) is not None:
        return record
    given = {field: getattr(trial, field) for field in Trial.model_fields}
    return _change(
        run, trial.trial_id, lambda there: _owned(run, there, token).changed(**given, status="running", error=None)
    )


def claim(run: Store, trial_ids: Iterable[str], token: str) -> list[TrialRecord]:
    """Make trials this process's: from now on what their earlier owners write changes nothing.

    Raises:
        NotOwner: the run folder was taken over.
    """

    def of_one(trial_id: str) -> TrialRecord:
        return _change(run, trial_id, lambda there: _owned(run, there, token))

    return [record for _, record in in_threads(of_one, trial_ids)]


def _owned(run: Store, there: TrialRecord, token: str) -> TrialRecord:
    """A record that was read, as this process's. The run folder's owner is looked at after the record: who takes both
    over in between changes the record."""
    if there.owner == token:
        return there
    check_owner(run, token)
    status = "running" if there.status == "saved" else there.status  # it was saved by the process before
    return there.changed(owners=(*there.owners, token), status=status)


def update(run: Store, trial_id: str, token: str, change: Callable[[TrialRecord], TrialRecord]) -> TrialRecord:
    """Change a trial's record; returns it as it is then.

    Args:
        token: of this process.
        change: makes the new record from the present one. It may be called again, with a newer one.

    Raises:
        NotOwner: the trial, or the run folder, belongs to another process.
        FileNotFoundError: the trial's file is gone.
        StoreError: the store cannot be used.
    """

    def as_owner(there: TrialRecord) -> TrialRecord:
        if there.owner != token:
            raise NotOwner(f"{run.url}/{trial_file(trial_id)} was taken over by another process")
        return change(there)

    check_owner(run, token)
    return _change(run, trial_id, as_owner)


def _change(run: Store, trial_id: str, change: Callable[[TrialRecord], TrialRecord]) -> TrialRecord:
    name = trial_file(trial_id)
    for _ in range(TRIES):
        try:
            there = run.read_stamped(name)
        except FileNotFoundError:
            raise FileNotFoundError(f"{run.url}/{name} is gone") from None
        before = TrialRecord.from_json(there.data, f"{run.url}/{name}")
        after = change(before)
        data = after.to_json()
        if data == there.data or run.replace_if(name, data, there.tag) is not None:
            return after
        # the answer to our own request may have been lost, and the request was repeated: then this is there
        if run.read(name) == data:
            return after
    raise StoreError(f"{run.url}/{name}: others keep changing it")


def report(record: TrialRecord, rung: Rung) -> Report:
    """What the early-stopping rule is told of a rung."""
    return Report(
        trial_id=record.trial_id,
        complexity_class=record.complexity_class,
        macs_per_pixel=record.macs_per_pixel,
        images_seen=rung.images_seen,
        bd_rate_pct=rung.bd_rate_pct,
        bd_rate_reason=rung.bd_rate_reason,
        log_lagrangian_ratio=rung.log_lagrangian_ratio,
    )


def decided(run: Store, trial_id: str, token: str, decision: Decision) -> TrialRecord:
    """Writes a decision into the trial's file; an ended trial's checkpoints are deleted, its weights stay.

    Raises NotOwner and what else `update` does.
    """

    def with_decision(there: TrialRecord) -> TrialRecord:
        rungs = tuple(
            rung.model_copy(update={"decision": decision}) if rung.images_seen == decision.rung else rung
            for rung in there.rungs
        )
        if decision.action == "continue":
            return there.changed(rungs=rungs)
        status = "finished" if decision.action == "end" else "stopped"
        return there.changed(rungs=rungs, status=status, checkpoint=None)

    record = update(run, trial_id, token, with_decision)
    if record.ended:
        delete_unnamed(run, record)
    return record


def decisions(record: TrialRecord) -> list[tuple[Report, Decision]]:
    """The trial's reports with the decision that each got, as far as its saved work reaches."""
    return [
        (report(record, rung), rung.decision)
        for rung in record.rungs
        if rung.decision is not None and rung.images_seen <= record.images_seen
    ]


def failed(run: Store, trial_id: str, token: str, error: str, *, lost: bool = False) -> None:
    """Marks a trial as failed; it keeps its checkpoint, and the same command tries it again from there.

    Args:
        lost: its processes died, as with their node, which is nothing that is wrong with the trial.

    Raises NotOwner and what else `update` does.
    """
    status = "lost" if lost else "failed"
    update(run, trial_id, token, lambda there: there.changed(status=status, error=error))


def delete_unnamed(run: Store, record: TrialRecord) -> None:
    """Deletes a trial's checkpoints and weights that its record, just written by its owner, does not name.

    What a later owner has written stays: its token is not in this record. So it does no harm if the trial was taken
    over since.
    """
    kept = (f"{record.checkpoint.path}/" if record.checkpoint else None, record.weights)
    folder = f"checkpoints/{record.trial_id}"
    files = [(name, name.split("/")[2]) for name in run.list(folder)]
    files += [(name, name.rpartition(".")[0]) for name in run.list(f"weights/{record.trial_id}")]
    for name, its_path in files:
        named = any(path is not None and name.startswith(path) for path in kept)
        if not named and its_path.rpartition("-")[2] in record.owners:
            run.delete(name)
