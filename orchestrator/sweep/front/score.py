"""A student's curve against the sweep's one anchor (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.families import Distortion
from orchestrator.evaluation.bd_rate import BDRate, InvalidCurve, bd_rate, log_lagrangian_ratio
from orchestrator.evaluation.metric import METRICS, CurvePoint, Metric


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The curve that every trial of a sweep, controls included, is scored against: the best teacher on the
    validation crops.

    Scored against its own teacher, a trial with a weak teacher would win.
    """

    teacher: str
    weights: str  # digest of the teacher's file
    rate_points: tuple[int | float, ...]  # of the curve: indices into the ladder, floats are gains between them
    curve: tuple[tuple[float, float], ...]  # (bpp, quality in dB), rates estimated
    lambdas: tuple[float, ...]  # the specification's
    at_lambdas: tuple[tuple[float, float], ...]  # (bpp, distortion) of the teacher at each of them
    distortion: Distortion = "mse"

    @property
    def metric(self) -> Metric:
        return METRICS[self.distortion]

    @property
    def digest(self) -> str:
        """SHA-256 of all that scores depend on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"digest": self.digest}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Anchor:
        """Raises ValueError if the digest does not fit."""
        pairs = ("curve", "at_lambdas")
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        fields |= {name: tuple(tuple(point) for point in data[name]) for name in pairs}
        fields |= {name: tuple(data[name]) for name in ("rate_points", "lambdas")}
        anchor = cls(**fields)
        if anchor.digest != data["digest"]:
            raise ValueError(f"anchor.json was changed: its digest is {data['digest']}, its content's {anchor.digest}")
        return anchor

    def score(self, points: Sequence[CurvePoint]) -> dict[str, Any]:
        """The measures of a rung; lower is better for both.

        Args:
            points: with what `metric` reads, in the order of `lambdas`.

        Returns:
            bd_rate_pct (None if the curve is not valid, with bd_rate_reason), overlap, interval_db,
            log_lagrangian_ratio and anchor_digest.
        """
        result = bd_rate(self.curve, self.metric.curve(points))
        costs = [self.metric.cost(point) for point in points]
        return {
            **scored(result),
            "log_lagrangian_ratio": log_lagrangian_ratio(self.at_lambdas, costs, self.lambdas),
            "anchor_digest": self.digest,
        }


def scored(result: BDRate | InvalidCurve) -> dict[str, Any]:
    """A BD-rate's outcome as it stands in the run folder's files."""
    if isinstance(result, InvalidCurve):
        return {"bd_rate_pct": None, "bd_rate_reason": str(result), "overlap": None, "interval_db": None}
    return {
        "bd_rate_pct": result.pct,
        "bd_rate_reason": None,
        "overlap": result.overlap,
        "interval_db": result.interval_db,
    }
