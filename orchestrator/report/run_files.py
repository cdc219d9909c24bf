"""A finished sweep as its run folder tells it: what the report is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluation.metric import METRICS, CurvePoint, Metric
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord

JsonObject = Mapping[str, Any]
NEEDED = ("anchor.json", "front.json", "versions.json", "spec.yaml")
OPTIONAL = ("coded/anchor.json", "coded/candidates.json", "account.json", "forecast.json")


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. `trials` are in the order of their ids."""

    name: str
    spec: str
    versions: JsonObject
    trials: tuple[TrialRecord, ...]
    anchor: JsonObject
    metric: Metric
    anchor_points: tuple[tuple[float, float], ...]  # (bpp, quality in dB)
    anchor_coded: bool  # its points are from real bitstreams, as the front's are
    front: tuple[JsonObject, ...]
    coded: Mapping[str, JsonObject]  # trial id -> its entry with real bitstreams
    account: JsonObject | None
    forecast: JsonObject | None  # made before the sweep began


def read_run(run: Store) -> RunFiles:
    """Reads the run folder's files.

    Raises:
        FileNotFoundError: one that every finished sweep has is missing.
        SpecError: a trial's file has another format.
    """

    def read(name: str) -> bytes | None:
        try:
            return run.read(name)
        except FileNotFoundError:
            if name in NEEDED:
                raise FileNotFoundError(f"{run.url}/{name} is missing: every finished sweep has it") from None
            return None

    trials = read_trials(run)
    files = {name: data for name, data in in_threads(read, (*NEEDED, *OPTIONAL)) if data is not None}
    spec = files.pop("spec.yaml").decode()
    content: dict[str, Any] = {name: json.loads(data) for name, data in files.items()}
    anchor, coded_anchor = content["anchor.json"], content.get("coded/anchor.json")
    metric = METRICS[anchor.get("distortion", "mse")]
    pairs = metric.curve(points_of(coded_anchor)) if coded_anchor else [tuple(pair) for pair in anchor["curve"]]
    candidates = content.get("coded/candidates.json") or content["front.json"]
    return RunFiles(
        name=run.url.rstrip("/").rpartition("/")[2],
        spec=spec,
        versions=content["versions.json"],
        trials=tuple(trials),
        anchor=anchor,
        metric=metric,
        anchor_points=tuple(sorted(pairs)),
        anchor_coded=coded_anchor is not None,
        front=tuple(content["front.json"]),
        coded={entry["trial_id"]: entry for entry in candidates},
        account=content.get("account.json"),
        forecast=content.get("forecast.json"),
    )


def points_of(entry: JsonObject) -> list[CurvePoint]:
    """The curve of an entry of the front, of a candidate or of the coded anchor."""
    return [CurvePoint.from_json(point) for point in entry["points"]]


def bd_rate_of(run: RunFiles, trial: TrialRecord) -> float | None:
    """From real bitstreams where the trial was coded, else the estimate of its last rung."""
    coded = run.coded.get(trial.trial_id)
    if coded is not None:
        return coded["bd_rate_pct"]
    return trial.rungs[-1].bd_rate_pct if trial.rungs else None
