"""The run folder's own JSON files: one a trial, written at every rung, and what a restored sweep reads from them.

They are what a sweep resumes from: Tune's own records are not read. A trial's file has one writer at a time: its
trainable when a rung is reached, then the driver when it has decided, then the trainable again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.evaluation.complexity import Complexity
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.outcomes import ENDED
from orchestrator.sweep.choose.rungs import Decision, Report
from orchestrator.sweep.run_folder.checkpoints import Checkpoint

Record = dict[str, Any]
OWNER = "owner.json"  # names the process that runs the sweep; another process's trials write nothing
LEAVE = "leave.json"  # names the process whose trials are to save what they have and to train no more


class NotOwner(RuntimeError):
    """The run folder belongs to a process started later."""


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
    """From now on only trials that carry this token may write."""
    write_json(run, OWNER, {"token": token})
    run.delete(LEAVE)


def tell_to_leave(run: Store, token: str) -> None:
    """Have the process's trials save what they have."""
    write_json(run, LEAVE, {"token": token})


def told_to_leave(run: Store, token: str) -> bool:
    return bool(read_json(run, LEAVE) == {"token": token})


def check_owner(run: Store, token: str) -> None:
    """Raises NotOwner if the run folder was taken over: after a driver's SIGKILL its trials live on for a moment."""
    owner = read_json(run, OWNER)
    if owner != {"token": token}:
        raise NotOwner(f"{run.url} was taken over by another process")


def trial_file(trial_id: str) -> str:
    return f"trials/{trial_id}.json"


def weights_file(trial_id: str) -> str:
    return f"weights/{trial_id}.safetensors"


def checkpoint_folder(trial_id: str, images: int, token: str) -> str:
    return f"checkpoints/{trial_id}/{images}-{token}"


def fresh(trial: Trial, size: Complexity) -> Record:
    """A trial that has reached no rung; `size` is its student's."""
    return {
        **trial.model_dump(mode="json"),
        "loss": trial.loss.model_dump(mode="json", exclude_defaults=True),
        "complexity_class": trial.complexity_class,
        "params": size.params,
        "macs_per_pixel": size.macs_per_pixel,
        "status": "running",
        "error": None,
        "lost": False,
        "images_seen": 0,
        "rungs": [],
        "checkpoint": None,
        "weights": None,
        "weights_digest": None,
    }


def begin(run: Store, trial: Trial, size: Complexity) -> None:
    """The trial's file, as `fresh` or as it was left; its paths are those of this start's specification."""
    record = read_trial(run, trial.trial_id)
    wanted = fresh(trial, size)
    if record is not None:
        wanted = record | {name: wanted[name] for name in (*Trial.model_fields, "status")}
    if wanted != record:
        write_trial(run, wanted)


def trial_of(record: Record) -> Trial:
    """The trial that a record is of."""
    return Trial.model_validate_json(json.dumps({name: record[name] for name in Trial.model_fields}))


def read_trials(run: Store) -> list[Record]:
    """All trials that were begun, in the order of their ids."""
    return [json.loads(run.read(name)) for name in sorted(run.list("trials")) if name.endswith(".json")]


def read_trial(run: Store, trial_id: str) -> Record | None:
    record: Record | None = read_json(run, trial_file(trial_id))
    return record


def write_trial(run: Store, record: Record) -> None:
    write_json(run, trial_file(record["trial_id"]), record)


def ended(record: Record | None) -> bool:
    return record is not None and record["status"] in ENDED


def images_seen(record: Record | None) -> int:
    """How far the trial's saved work reaches."""
    return record["images_seen"] if record else 0


def lost(record: Record) -> bool:
    """Whether the trial failed because its processes died, see `failed`."""
    return bool(record["status"] == "failed" and record.get("lost"))


def has_left(record: Record | None, token: str) -> bool:
    """Whether the trial has saved what it has, since the process was told to leave."""
    return record is not None and record.get("left") == token


def next_rung(record: Record, rungs: Sequence[int]) -> int:
    """The first rung without a report; the trial's saved work may reach up to it."""
    reported = {rung["images_seen"] for rung in record["rungs"]}
    return next(rung for rung in rungs if rung not in reported)


def checkpoint(record: Record) -> Checkpoint | None:
    return Checkpoint(**record["checkpoint"]) if record["checkpoint"] else None


def report(record: Record, rung: Mapping[str, Any]) -> Report:
    """What the early-stopping rule is told of a rung."""
    return Report(
        trial_id=record["trial_id"],
        complexity_class=record["complexity_class"],
        macs_per_pixel=record["macs_per_pixel"],
        images_seen=rung["images_seen"],
        bd_rate_pct=rung["bd_rate_pct"],
        bd_rate_reason=rung["bd_rate_reason"],
        log_lagrangian_ratio=rung["log_lagrangian_ratio"],
    )


def decided(run: Store, record: Record, decision: Decision) -> None:
    """Writes a decision into the trial's file; an ended trial's checkpoints are deleted, its weights stay."""
    for rung in record["rungs"]:
        if rung["images_seen"] == decision.rung:
            rung["decision"] = {name: value for name, value in asdict(decision).items() if name != "rung"}
    if decision.action != "continue":
        record |= {"status": "finished" if decision.action == "end" else "stopped", "checkpoint": None}
    write_trial(run, record)
    if decision.action != "continue":
        delete_checkpoints(run, record["trial_id"])


def decisions(record: Record) -> list[tuple[Report, Decision]]:
    """The trial's reports with the decision that each got, as far as its saved work reaches."""
    return [
        (report(record, rung), Decision(rung=rung["images_seen"], **rung["decision"]))
        for rung in record["rungs"]
        if "decision" in rung and rung["images_seen"] <= record["images_seen"]
    ]


def failed(run: Store, trial_id: str, error: str, *, lost: bool = False) -> None:
    """Marks a trial as failed; it keeps its checkpoint, and the same command tries it again from there.

    Args:
        lost: its processes died, as with their node, which is nothing that is wrong with the trial.
    """
    record = read_trial(run, trial_id)
    if record is None:
        raise FileNotFoundError(f"{run.url}/{trial_file(trial_id)} is gone")
    write_trial(run, record | {"status": "failed", "error": error, "lost": lost})


def delete_checkpoints(run: Store, trial_id: str, *, but: str | None = None) -> None:
    """Deletes a trial's checkpoints except those under the path `but`."""
    for name in run.list(f"checkpoints/{trial_id}"):
        if but is None or not name.startswith(but + "/"):
            run.delete(name)
