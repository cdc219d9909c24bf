"""interchange.json: what every decoder of a shelf makes of every encoder's bitstreams (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.format import ResultFile, StrictModel

INTERCHANGE = "interchange.json"


class Exchange(StrictModel):
    """The streams of one student of the front, decoded by another one, or by itself."""

    encoder: str  # trial
    decoder: str
    entropy_id: str  # of both
    points: tuple[CurvePoint, ...]
    bd_rate_pct: float | None  # against the anchor's coded curve; None: not valid


class Interchange(ResultFile):
    """interchange.json: every pair of students of the front that have the same entropy model."""

    format: Literal[1] = 1
    weights: dict[str, str]  # trial -> SHA-256 of its weights
    exchanges: tuple[Exchange, ...]
