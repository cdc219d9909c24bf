"""Writes the trials' files of a run folder. A sweep resumes from them; Tune's own records are not read.

A process that takes over a run folder writes its token into owner.json, and into each trial's file before it continues
the trial. A trial's file is changed only by the process whose token is the last in it, and only if its content is still
the one that was read (compare and swap). So a stale process, whose run folder or trial was taken over, changes nothing:
it reads another token, raises NotOwner, and ends.

Every checkpoint and every weights file has a path of its own, with the writer's token. A process deletes those that the
trial's file does not name and whose token is among the file's owners. Files of later processes stay, since their tokens
are not in the file that this process wrote.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict

from pydantic import JsonValue

from orchestrator.evaluation.costs import Complexity
from orchestrator.results.format import json_value
from orchestrator.spec.trial import Trial
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.store.tries import tries
from orchestrator.sweep.choose.rungs import Report
from orchestrator.trials.files import trial_file
from orchestrator.trials.record import Decision, Rung, TrialRecord

OWNER = "owner.json"  # holds the token of the process that runs the sweep


class NotOwner(RuntimeError):
    """The run folder, or a trial in it, now belongs to another process."""


def read_json(store: Store, name: str) -> JsonValue:
    """The value in a file; None if there is no such file. Raises FormatError: it is not JSON, or cut off."""
    try:
        return json_value(store.read(name), f"{store.url}/{name}")
    except FileNotFoundError:
        return None


def write_json(store: Store, name: str, value: object) -> None:
    """Replace the file atomically. Raises ValueError for a value that JSON does not have, such as NaN."""
    store.replace(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def take_over(run: Store, token: str) -> None:
    """Make a token the run folder's: from now on only processes that carry it may write. See also `claim`."""
    write_json(run, OWNER, {"token": token})


def check_owner(run: Store, token: str) -> None:
    """Raises NotOwner if the run folder has another token: trials survive a driver's SIGKILL for a moment."""
    owner = read_json(run, OWNER)
    if owner != {"token": token}:
        raise NotOwner(f"{run.url} was taken over by another process")


def weights_file(trial_id: str, images: int, token: str) -> str:
    """A new path for a trial's weights after `images`; unique to this call."""
    return f"weights/{trial_id}/{images}-{secrets.token_hex(4)}-{token}.safetensors"


def checkpoint_folder(trial_id: str, images: int, token: str) -> str:
    """A new path for a trial's checkpoint after `images`; unique to this call."""
    return f"checkpoints/{trial_id}/{images}-{secrets.token_hex(4)}-{token}"


def fresh(trial: Trial, size: Complexity, token: str) -> TrialRecord:
    """The record of a trial that has reached no rung.

    Args:
        trial: the trial.
        size: its student's complexity.
        token: of its owner.
    """
    return TrialRecord(
        **{name: getattr(trial, name) for name in Trial.model_fields},
        owners=(token,),
        **asdict(size),
    )


def begin(run: Store, trial: Trial, size: Complexity, token: str) -> TrialRecord:
    """Write the trial's file as it starts to run: a fresh one, or the existing one with the status `running`.

    An existing record takes the trial of the present specification, whose paths may have changed.

    Args:
        run: the run folder.
        trial: the trial.
        size: its student's complexity.
        token: of this process.

    Raises:
        NotOwner: the run folder was taken over.
    """
    check_owner(run, token)
    record = fresh(trial, size, token)
    if run.publish(trial_file(trial.trial_id), record.to_json()) is not None:
        return record
    fields = {field: getattr(trial, field) for field in Trial.model_fields}
    return _change(
        run, trial.trial_id, lambda current: _owned(run, current, token).changed(**fields, status="running", error=None)
    )


def claim(run: Store, trial_ids: Iterable[str], token: str) -> list[TrialRecord]:
    """Make this process the owner of trials: from now on earlier owners can change nothing.

    Returns:
        The trials' records.

    Raises:
        NotOwner: the run folder was taken over.
    """

    def of_one(trial_id: str) -> TrialRecord:
        return _change(run, trial_id, lambda current: _owned(run, current, token))

    return [record for _, record in in_threads(of_one, trial_ids)]


def _owned(run: Store, current: TrialRecord, token: str) -> TrialRecord:
    """A record with this process as its owner. The run folder's owner is read after the record: a process that takes
    over in between changes the record, and the compare and swap fails."""
    if current.owner == token:
        return current
    check_owner(run, token)
    status = "running" if current.status == "saved" else current.status  # an earlier process saved it
    return current.changed(owners=(*current.owners, token), status=status)


def update(run: Store, trial_id: str, token: str, change: Callable[[TrialRecord], TrialRecord]) -> TrialRecord:
    """Change a trial's record; returns the new one.

    Args:
        run: the run folder.
        trial_id: of the trial.
        token: of this process.
        change: makes the new record from the present one. It is called again if the file has changed meanwhile.

    Raises:
        NotOwner: the trial, or the run folder, belongs to another process.
        FileNotFoundError: the trial's file is gone.
        StoreError: the store cannot be used.
    """

    def as_owner(current: TrialRecord) -> TrialRecord:
        if current.owner != token:
            raise NotOwner(f"{run.url}/{trial_file(trial_id)} was taken over by another process")
        return change(current)

    check_owner(run, token)
    return _change(run, trial_id, as_owner)


def _change(run: Store, trial_id: str, change: Callable[[TrialRecord], TrialRecord]) -> TrialRecord:
    """`update`, without a check of the owner."""
    name = trial_file(trial_id)
    for _ in tries(f"{run.url}/{name}"):
        try:
            stored = run.read_stamped(name)
        except FileNotFoundError:
            raise FileNotFoundError(f"{run.url}/{name} is gone") from None
        before = TrialRecord.from_json(stored.data, f"{run.url}/{name}")
        after = change(before)
        data = after.to_json()
        if data == stored.data or run.replace_if(name, data, stored.tag) is not None:
            return after
        # the answer to our own request may have been lost and the request repeated: then our data is stored
        if run.read(name) == data:
            return after
    raise AssertionError("unreachable")


def report(record: TrialRecord, rung: Rung) -> Report:
    """A rung's report to the early-stopping rule."""
    return Report(
        trial_id=record.trial_id,
        complexity_class=record.complexity_class,
        macs_per_pixel=record.macs_per_pixel,
        images_seen=rung.images_seen,
        bd_rate_pct=rung.bd_rate_pct,
        bd_rate_reason=rung.bd_rate_reason,
        log_lagrangian_ratio=rung.log_lagrangian_ratio,
    )


def write_decision(run: Store, trial_id: str, token: str, decision: Decision) -> TrialRecord:
    """Write a decision into the trial's file; returns the new record. An ended trial keeps its weights, not its
    checkpoints.

    Raises NotOwner and the other errors of `update`.
    """

    def with_decision(current: TrialRecord) -> TrialRecord:
        rungs = tuple(
            rung.model_copy(update={"decision": decision}) if rung.images_seen == decision.rung else rung
            for rung in current.rungs
        )
        if decision.action == "continue":  # a trial that was paused waits no longer
            return current.changed(rungs=rungs, status="running" if current.status == "paused" else current.status)
        # a trial that failed once its rung was written has nothing to try again
        if decision.action == "pause":
            return current.changed(rungs=rungs, status="paused", error=None)
        status = "finished" if decision.action == "end" else "stopped"
        return current.changed(rungs=rungs, status=status, error=None, checkpoint=None)

    record = update(run, trial_id, token, with_decision)
    if record.ended:
        delete_unnamed(run, record)
    return record


def decisions(record: TrialRecord) -> list[tuple[Report, Decision]]:
    """The trial's reports with their decisions, without rungs beyond its saved work."""
    return [
        (report(record, rung), rung.decision)
        for rung in record.rungs
        if rung.decision is not None and rung.images_seen <= record.images_seen
    ]


def mark_failed(run: Store, trial_id: str, token: str, error: str, *, lost: bool = False) -> None:
    """Mark a trial as failed. It keeps its checkpoint; the same command tries it again from there.

    Args:
        run: the run folder.
        trial_id: of the trial.
        token: of this process.
        error: the traceback, or another text.
        lost: the trial's processes died, as with their node; nothing is wrong with the trial itself.

    Raises NotOwner and the other errors of `update`.
    """
    status = "lost" if lost else "failed"
    update(run, trial_id, token, lambda current: current.changed(status=status, error=error))


def delete_unnamed(run: Store, record: TrialRecord) -> None:
    """Delete a trial's checkpoints and weights that its record does not name; the owner has just written the record.

    Files of later owners stay, since their tokens are not in this record. So this is safe after a takeover, too.
    """
    kept = (f"{record.checkpoint.path}/" if record.checkpoint else None, record.weights)
    folder = f"checkpoints/{record.trial_id}"
    files = [(name, name.split("/")[2]) for name in run.list(folder)]
    files += [(name, name.rpartition(".")[0]) for name in run.list(f"weights/{record.trial_id}")]
    for name, path_with_token in files:
        named = any(path is not None and name.startswith(path) for path in kept)
        if not named and path_with_token.rpartition("-")[2] in record.owners:
            run.delete(name)
