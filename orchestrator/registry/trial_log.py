"""What MLflow's run of a trial holds, made from the trial's record (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.registry.facts import SweepFacts
from orchestrator.registry.names import bundle_costs
from orchestrator.results.bundles import CodingCosts
from orchestrator.results.front import CodedStudent
from orchestrator.trials.record import Rung, Status, TrialRecord

MEASURED = ("bpp", "psnr_db", "ms_ssim_db")
FIRST = "estimated_log_lagrangian_ratio"  # every rung has it
MAX_ERROR = 5000  # characters; MLflow takes 8000 a tag
RUNNING = "RUNNING"
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


def source_tags(facts: SweepFacts) -> dict[str, str]:
    """MLflow's own tags of where a run comes from."""
    revision = facts.versions.git_revision if facts.versions else None
    source = {"mlflow.source.name": "jobs/sweep_feds.py", "mlflow.source.type": "JOB"}
    return source | ({"mlflow.source.git.commit": revision} if revision else {})


def metrics(rung: Rung) -> dict[str, float]:
    """Of a rung, rates estimated. Names carry units; bd_rate_pct and log_lagrangian_ratio are better when lower."""
    values = {name: getattr(rung, name) for name in ("bd_rate_pct", "log_lagrangian_ratio", "overlap")}
    return _named("estimated", values, rung.points)


def coded_metrics(student: CodedStudent) -> dict[str, float]:
    """Of real bitstreams."""
    values = {name: getattr(student, name) for name in ("bd_rate_pct", "overlap")}
    return _named("coded", values, student.points)


def bundle_metrics(costs: CodingCosts | None) -> dict[str, float]:
    """Of coding with the student's bundle, times with their quartiles; lower is better."""
    measured = bundle_costs(costs)
    if costs is not None:
        for side in ("encode", "decode"):
            name = f"{side}_ms_per_megapixel"
            spread = getattr(costs, name).model_dump(include={"lower_quartile", "upper_quartile"})
            measured |= {f"bundle_{name}_{quartile}": value for quartile, value in spread.items()}
    return measured


def _named(prefix: str, values: Mapping[str, float | None], points: Sequence[CurvePoint]) -> dict[str, float]:
    measured = dict(values)
    for point in points:
        measured |= {f"{name}_rate_{point.rate_point}": getattr(point, name) for name in MEASURED}
    return {f"{prefix}_{name}": float(value) for name, value in measured.items() if value is not None}


def params(trial: TrialRecord, facts: SweepFacts) -> dict[str, str]:
    """The trial's configuration: network, loss and hyperparameters."""
    values = trial.model_dump(mode="json", include={"student", "loss", "choices"})
    flat = {f"student_{name}": value for name, value in values["student"].items()}
    flat |= {f"loss_{name}": value for name, value in values["loss"].items()}
    flat |= {f"drawn_{name}": value for name, value in values["choices"].items()}
    if facts.spec is not None:
        shared = facts.spec.model_dump(mode="json", include={"training", "rate_ladder", "crops"})
        flat |= {f"{part}_{name}": value for part, section in shared.items() for name, value in section.items()}
    fields = ("teacher", "seed", "params", "macs_per_pixel", "complexity_class")
    flat |= {name: getattr(trial, name) for name in fields}
    return {name: json.dumps(value) if isinstance(value, list | dict) else str(value) for name, value in flat.items()}


def began_ms(trial: TrialRecord) -> int | None:
    """When its first segment began, in milliseconds since the epoch; None: it has reached no rung."""
    if not trial.rungs:
        return None
    rung = trial.rungs[0]
    took = rung.startup_s + rung.build_s + rung.training_s + rung.validation_s + rung.saving_s
    return max(0, round(1000 * (rung.ended_at - took)))


def ended_ms(trial: TrialRecord) -> int | None:
    """When it reached its last rung; None: it has reached none."""
    return round(1000 * trial.rungs[-1].ended_at) if trial.rungs else None
