"""A student's curve against the sweep's one anchor (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from models.families import Distortion
from orchestrator.evaluation.bd_rate import BDRate, InvalidCurve, bd_rate, log_lagrangian_ratio
from orchestrator.evaluation.metric import METRICS, CurvePoint, Metric


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A BD-rate's outcome, as in the run folder's files."""

    bd_rate_pct: float | None  # None: the curve is not valid
    bd_rate_reason: str | None  # why it is not
    overlap: float | None
    interval_db: tuple[float, float] | None

    @classmethod
    def of(cls, result: BDRate | InvalidCurve) -> Comparison:
        """The outcome of `bd_rate` as fields of a file."""
        if isinstance(result, InvalidCurve):
            return cls(bd_rate_pct=None, bd_rate_reason=str(result), overlap=None, interval_db=None)
        return cls(bd_rate_pct=result.pct, bd_rate_reason=None, overlap=result.overlap, interval_db=result.interval_db)


@dataclass(frozen=True, kw_only=True)
class Score(Comparison):
    """The measures of a rung; lower is better for both."""

    log_lagrangian_ratio: float  # always finite
    anchor_digest: str


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
        """How its curve and those compared with it are read."""
        return METRICS[self.distortion]

    @property
    def digest(self) -> str:
        """SHA-256 of all that scores depend on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def score(self, points: Sequence[CurvePoint]) -> Score:
        """A student's curve against this one.

        Args:
            points: with what `metric` reads, in the order of `lambdas`.

        Raises:
            ValueError: not as many points as lambdas, or a cost that is not positive and finite.
        """
        compared = Comparison.of(bd_rate(self.curve, self.metric.curve(points)))
        costs = [self.metric.cost(point) for point in points]
        ratio = log_lagrangian_ratio(self.at_lambdas, costs, self.lambdas)
        return Score(**asdict(compared), log_lagrangian_ratio=ratio, anchor_digest=self.digest)
