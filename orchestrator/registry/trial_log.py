"""What MLflow's run of a trial holds, made from the trial's record (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.trials.record import Rung, Status, TrialRecord

MEASURED = ("bpp", "psnr_db", "ms_ssim_db")
MAX_ERROR = 5000  # characters; MLflow takes 8000 a tag
STATUS: Mapping[Status, str] = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "lost": "FAILED",
    "running": "KILLED",
    "paused": "KILLED",
    "saved": "KILLED",
}


def identity(trial: TrialRecord, sweep: str) -> dict[str, str]:
    """The tags by which a run is found again.

    Two people may run one sweep, with the same inputs, into one MLflow: the token of the process that began the trial
    tells their runs apart. So does it where a trial was begun anew.

    Args:
        trial: its record.
        sweep: the sweep's id.
    """
    return {"sweep": sweep, "trial_id": trial.trial_id, "begun_by": trial.owners[0]}


def tags(trial: TrialRecord) -> dict[str, str]:
    """The tags that change while a trial is trained. `error` is there only if it failed."""
    values = {
        "status": trial.status,
        "stopped": str(trial.status == "stopped").lower(),
        "images_seen": str(trial.images_seen),
        "error": trial.error and trial.error[:MAX_ERROR],
        "weights_digest": trial.weights_digest,
    }
    return {name: value for name, value in values.items() if value is not None}


def metrics(rung: Rung) -> list[tuple[str, float]]:
    """Names carry their units; bd_rate_pct and log_lagrangian_ratio are better when lower."""
    values = [(f"val_{name}", getattr(rung, name)) for name in ("bd_rate_pct", "log_lagrangian_ratio", "overlap")]
    for point in rung.points:
        values += [(f"val_{name}_rate_{point.rate_point}", getattr(point, name)) for name in MEASURED]
    return [(name, float(value)) for name, value in values if value is not None]


def params(trial: TrialRecord) -> list[tuple[str, str]]:
    """The trial's configuration."""
    values = trial.model_dump(mode="json", include={"student", "loss"})
    flat = [(f"student_{name}", value) for name, value in values["student"].items()]
    flat += [
        (f"loss_{name}", value if isinstance(value, str | float) else json.dumps(value))
        for name, value in values["loss"].items()
    ]
    fields = ("teacher", "seed", "params", "macs_per_pixel", "complexity_class")
    return [(name, str(value)) for name, value in (*flat, *((name, getattr(trial, name)) for name in fields))]
