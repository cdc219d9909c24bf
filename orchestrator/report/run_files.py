"""A finished sweep as its run folder tells it: what the report is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluation.metric import METRICS, Metric
from orchestrator.store.store import Store

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. `trials` are in the order of their ids."""

    name: str
    spec: str
    versions: Record
    trials: tuple[Record, ...]
    anchor: Record
    metric: Metric
    anchor_points: tuple[tuple[float, float], ...]  # (bpp, quality in dB)
    anchor_coded: bool  # its points are from real bitstreams, as the front's are
    front: tuple[Record, ...]
    coded: Mapping[str, Record]  # trial id -> its entry with real bitstreams
    account: Record | None
    forecast: Record | None  # made before the sweep began


def read_run(run: Store) -> RunFiles:
    """Reads the run folder's files. Raises FileNotFoundError for one that every finished sweep has."""

    def load(name: str) -> Any:
        return json.loads(run.read(name))

    def optional(name: str) -> Any:
        try:
            return load(name)
        except FileNotFoundError:
            return None

    anchor = load("anchor.json")
    coded_anchor = optional("coded/anchor.json")
    points = coded_anchor["points"] if coded_anchor else anchor.get("points")
    metric = METRICS[anchor.get("distortion", "mse")]
    pairs = metric.curve(points) if points else [tuple(each) for each in anchor["curve"]]
    candidates = optional("coded/candidates.json") or load("front.json")
    return RunFiles(
        name=run.url.rstrip("/").rpartition("/")[2],
        spec=run.read("spec.yaml").decode(),
        versions=load("versions.json"),
        trials=tuple(load(name) for name in sorted(run.list("trials")) if name.endswith(".json")),
        anchor=anchor,
        metric=metric,
        anchor_points=tuple(sorted(pairs)),
        anchor_coded=coded_anchor is not None,
        front=tuple(load("front.json")),
        coded={entry["trial_id"]: entry for entry in candidates},
        account=optional("account.json"),
        forecast=optional("forecast.json"),
    )


def bd_rate_of(run: RunFiles, trial: Record) -> float | None:
    """From real bitstreams where the trial was coded, else the estimate of its last rung."""
    coded = run.coded.get(trial["trial_id"])
    if coded is not None:
        return coded["bd_rate_pct"]
    return trial["rungs"][-1]["bd_rate_pct"] if trial["rungs"] else None
