"""Short builders of a run folder's typed files; fields that a test does not give have arbitrary values."""

from __future__ import annotations

from typing import Any

from orchestrator.results.account import ByteCounts, Forecast, GangSeconds
from orchestrator.results.bundles import CodingCosts, Spread
from orchestrator.results.front import Candidate, CodedStudent
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Student

TRAINED: dict[str, Any] = {
    "trial_id": "01-hyperprior-n8-control",
    "teacher": None,
    "student": Student(family="hyperprior", N=8, M=96),
    "loss": Loss(),
    "complexity_class": "hyperprior-n8-m96",
    "params": 1000,
    "macs_per_pixel": 250.5,
    "encoder_macs_per_pixel": 150.5,
    "decoder_macs_per_pixel": 100.0,
    "images_seen": 1024,
    "status": "finished",
    "weights": "weights/a.safetensors",
    "weights_digest": "0" * 64,
}


def candidate(**fields: Any) -> Candidate:
    return Candidate(**TRAINED | {"bd_rate_pct": 0.0, "points": ()} | fields)


def coded_student(**fields: Any) -> CodedStudent:
    compared = {"bd_rate_pct": 0.0, "bd_rate_reason": None, "overlap": None, "interval_db": None}
    coding = {"points": (), "estimated_bd_rate_pct": 0.0, "rate_gap_pct": 0.0, "validation": (), "entropy_id": ""}
    return CodedStudent(**TRAINED | compared | coding | fields)


def coding_costs(**fields: Any) -> CodingCosts:
    """90 to 120 ms a megapixel to encode, 110 to 150 to decode."""
    known: dict[str, Any] = {
        "processor": "AMD EPYC",
        "threads": 1,
        "width": 384,
        "height": 320,
        "samples": 12,
        "encode_ms_per_megapixel": Spread(median=100.25, lower_quartile=90.0, upper_quartile=120.0),
        "decode_ms_per_megapixel": Spread(median=130.0, lower_quartile=110.0, upper_quartile=150.0),
        "peak_memory_mb": 140.04,
    }
    return CodingCosts(**known | fields)


def gang_seconds(**fields: float) -> GangSeconds:
    return GangSeconds(**dict.fromkeys(GangSeconds.model_fields, 0.0) | fields)


def byte_counts(**fields: float) -> ByteCounts:
    return ByteCounts(**dict.fromkeys(ByteCounts.model_fields, 0) | fields)


def forecast_of(**fields: Any) -> Forecast:
    hours: dict[str, Any] = dict.fromkeys(("images", "trial_hours", "teacher_hours", "requests", "wall_s"), 0.0)
    return Forecast(**hours | {"phases_s": {}, "gangs": gang_seconds(), "bytes": byte_counts()} | fields)
