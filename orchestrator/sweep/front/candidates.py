"""Which trials are coded with real bitstreams, and the front that comes out of it.

Estimated rates stop trials; real bitstreams register them. A trial that was stopped may be on the front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import ray

from orchestrator.evaluation.bd_rate import bd_rate
from orchestrator.evaluation.front import AXES, pareto_front
from orchestrator.evaluation.metric import CurvePoint, Metric
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import code
from orchestrator.sweep.front.score import Anchor, scored
from orchestrator.sweep.run_folder import records
from orchestrator.trials.record import TrialRecord

PUBLISHED_OVERLAP = 0.75  # share of a curve that must lie inside the anchor's for a figure that is registered
ANCHOR_CODED = "coded/anchor.json"
Entry = dict[str, Any]
Coded = dict[str, Any]  # key: what it was made from; points: the curve; validation: each photograph's bitstreams
Crops = Sequence[tuple[Photograph, Crop]]


class Job(NamedTuple):
    """One network to code with."""

    file: str  # of the run folder, for the result
    digest: str  # of the weights
    weights: Callable[[], bytes]
    rate_points: Sequence[int | float]


def choose(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """At most `limit` entries: the Pareto front of `AXES`, then the front of the rest, and so on.

    Of a front that does not fit whole, entries evenly spread over the complexity are taken, both its ends first.
    """
    rest = list(entries)
    chosen: list[Entry] = []
    while rest and len(chosen) < limit:
        front = sorted(pareto_front(rest, AXES), key=lambda entry: entry["macs_per_pixel"])
        names = {entry["trial_id"] for entry in front}
        rest = [entry for entry in rest if entry["trial_id"] not in names]
        room = limit - len(chosen)
        if len(front) > room:
            places = [round(place * (len(front) - 1) / max(1, room - 1)) for place in range(room)]
            front = [front[place] for place in places]
        chosen += front
    return chosen


def estimated(trials: Iterable[TrialRecord]) -> list[Entry]:
    """An entry for every ended trial whose last curve is valid, with the estimated rates of its last rung."""
    kept = {"trial_id", "teacher", "student", "loss", "params", "macs_per_pixel", "images_seen"}
    kept |= {"status", "weights", "weights_digest"}
    return [
        trial.model_dump(mode="json", include=kept)
        | {"complexity_class": trial.complexity_class, "bd_rate_pct": trial.rungs[-1].bd_rate_pct}
        | {"points": [point.to_json() for point in trial.rungs[-1].points]}
        for trial in trials
        if trial.ended and trial.rungs[-1].bd_rate_pct is not None
    ]


def code_all(
    chosen: Sequence[Entry], run: Store, anchor: Anchor, teacher: bytes, crops: Crops, say: Callable[[str], None]
) -> tuple[list[Entry], int]:
    """Real bitstreams of the chosen trials and of the anchor, on the same crops; what was coded before is read back.

    Args:
        chosen: of `estimated`.
        run: the run folder; results go to coded/.
        anchor: its gains are coded too, with `teacher`, the bytes of its weights file.
        crops: of the validation photographs.
        say: takes a line of progress.

    Returns:
        Entries with BD-rate and points from real bitstreams, and how many curves were reused.
    """
    rate_points = list(range(len(anchor.lambdas)))
    jobs = [Job(ANCHOR_CODED, anchor.weights, lambda: teacher, anchor.rate_points)]
    jobs += [
        Job(f"coded/{e['trial_id']}.json", e["weights_digest"], partial(run.read, e["weights"]), rate_points)
        for e in chosen
    ]
    boxes = [[photograph.digest, crop.left, crop.top, crop.side, crop.size] for photograph, crop in crops]
    curves: dict[str, Coded] = {}
    waiting: dict[Any, tuple[str, dict[str, Any]]] = {}
    for job in jobs:
        key = {"weights": job.digest, "rate_points": list(job.rate_points), "crops": boxes}
        before = records.read_json(run, job.file)
        if before is not None and before["key"] == key:
            curves[job.file] = before
        else:
            waiting[code.remote(job.weights(), crops, job.rate_points)] = (job.file, key)
    reused = len(curves)
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        file, key = waiting.pop(ready)
        points, measured = ray.get(ready)
        curves[file] = {"key": key, "points": [point.to_json() for point in points], "validation": measured}
        records.write_json(run, file, curves[file])
        say(f"coded with real bitstreams: {file.removeprefix('coded/').removesuffix('.json')}")
    against = curves[ANCHOR_CODED]["points"]
    scored = [_scored(entry, curves[f"coded/{entry['trial_id']}.json"], against, anchor.metric) for entry in chosen]
    return scored, reused


def front_of(coded: Sequence[Entry]) -> list[Entry]:
    """The Pareto front of the coded entries, cheapest first; one whose coded curve is not valid cannot be on it."""
    valid = [entry for entry in coded if entry["bd_rate_pct"] is not None]
    return sorted(pareto_front(valid, AXES), key=lambda entry: entry["macs_per_pixel"])


def _scored(entry: Entry, coded: Coded, anchor: list[Entry], metric: Metric) -> Entry:
    points = coded["points"]
    curves = [metric.curve(map(CurvePoint.from_json, its)) for its in (anchor, points)]
    result = bd_rate(*curves, minimum_overlap=PUBLISHED_OVERLAP)
    estimated_bpp = [point["bpp"] for point in entry["points"]]
    gaps = [100 * (real["bpp"] / bpp - 1) for real, bpp in zip(points, estimated_bpp, strict=True)]
    return entry | {
        **scored(result),
        "estimated_bd_rate_pct": entry["bd_rate_pct"],
        "rate_gap_pct": max(gaps, key=abs),  # real bits over estimated ones, the largest of the rate points
        "points": points,
        "validation": coded["validation"],
    }
