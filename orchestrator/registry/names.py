"""What a sweep, and what it leaves, is called in MLflow (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from orchestrator.results.bundles import SHORT, CodingCosts
from orchestrator.results.front import CodedStudent


def model_name(name: str, sweep: str) -> str:
    """Of a sweep's experiment and of its registered model.

    Args:
        name: the sweep's.
        sweep: its id. Sweeps of one name with other inputs have other ids, so they never meet in MLflow.
    """
    return f"lic-distillery-{name}-{sweep[:SHORT]}"


def alias(trial_id: str, weights_digest: str) -> str:
    """Of a version: the trial's id and the weights' digest. It names the same weights in every registry, for ever.

    MLflow takes letters, digits, _ and - here. A dot, as in a teacher's name, becomes _. Two trials of a sweep have two
    aliases all the same, since a trial's id begins with its number.

    Args:
        trial_id: of the trial.
        weights_digest: SHA-256 of its weights.
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', trial_id)}-{weights_digest[:SHORT]}"


def artifact_folder(weights_digest: str) -> str:
    """Of a version among its run's artifacts. Other weights have another folder, so none is ever written over."""
    return f"model-{weights_digest[:SHORT]}"


def version_tags(student: CodedStudent, costs: CodingCosts | None) -> dict[str, str]:
    """Of a version, beside its sweep's id.

    Args:
        student: on the front.
        costs: of coding with its bundle; None: not measured, and no tags.
    """
    network, measured = student.student, bundle_costs(costs)
    on = {} if costs is None else {"bundle_measured_on": costs.processor}
    return {
        "trial_id": student.trial_id,
        "weights_digest": student.weights_digest,
        "teacher": student.teacher or "none",
        "bd_rate_pct": "none" if student.bd_rate_pct is None else f"{student.bd_rate_pct:.4f}",
        "macs_per_pixel": f"{student.macs_per_pixel:.2f}",
        "params": str(student.params),
        "entropy_id": student.entropy_id,
        "encoder": f"{network.family}-n{network.encoder_N or network.N}",
        "decoder": f"{network.family}-n{network.N}",
        "images_seen": str(student.images_seen),
        **{name: f"{value:.1f}" for name, value in measured.items()},
        **on,
    }


def bundle_costs(costs: CodingCosts | None) -> dict[str, float]:
    """What coding with a bundle takes, as its run's metrics and its version's tags are called; the times are medians.

    Not to be mixed up with a student's own `encode_ms_per_megapixel`, which is of its transforms under torch.
    """
    if costs is None:
        return {}
    measured = {
        "bundle_encode_ms_per_megapixel": costs.encode_ms_per_megapixel.median,
        "bundle_decode_ms_per_megapixel": costs.decode_ms_per_megapixel.median,
        "bundle_peak_memory_mb": costs.peak_memory_mb,
    }
    return {name: value for name, value in measured.items() if value is not None}


BALANCED = "the least distance to the best BD-rate and the fewest MACs, ln of MACs, both scaled to 0..1 over the front"


def best_of(students: Sequence[CodedStudent]) -> dict[str, str]:
    """Alias -> the trial of the front that has it.

    best-bd-rate: the lowest BD-rate. fastest: the fewest MACs of encoder and decoder together; encoder-smallest and
    decoder-smallest: of one of them. balanced: see `BALANCED`. Of equal ones the lower BD-rate, then the first trial.
    """
    orders: Mapping[str, Callable[[CodedStudent], float | None]] = {
        "best-bd-rate": lambda student: student.bd_rate_pct,
        "fastest": lambda student: student.encoder_macs_per_pixel + student.decoder_macs_per_pixel,
        "balanced": _distance_to_ideal(students),
        "encoder-smallest": lambda student: student.encoder_macs_per_pixel,
        "decoder-smallest": lambda student: student.decoder_macs_per_pixel,
    }

    def place(student: CodedStudent, order: Callable[[CodedStudent], float | None]) -> tuple[float, float, str]:
        first, rate = order(student), student.bd_rate_pct
        return math.inf if first is None else first, math.inf if rate is None else rate, student.trial_id

    return {
        name: min(students, key=lambda student: place(student, order)).trial_id
        for name, order in orders.items()
        if students
    }


def _distance_to_ideal(students: Sequence[CodedStudent]) -> Callable[[CodedStudent], float | None]:
    rates = [student.bd_rate_pct for student in students if student.bd_rate_pct is not None]
    costs = [math.log(student.macs_per_pixel) for student in students]

    def share(value: float, values: Sequence[float]) -> float:
        width = max(values) - min(values)
        return (value - min(values)) / width if width else 0.0

    def distance(student: CodedStudent) -> float | None:
        if student.bd_rate_pct is None:
            return None
        return math.hypot(share(student.bd_rate_pct, rates), share(math.log(student.macs_per_pixel), costs))

    return distance
