"""coded/references.json: what else was measured on the validation photographs, to compare students with (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.evaluation.metric import CurvePoint, Measured
from orchestrator.results.format import ResultFile, StrictModel

REFERENCES = "coded/references.json"


class Reference(StrictModel):
    """A teacher other than the anchor's, or a classical codec: real bitstreams, decoded."""

    name: str
    kind: Literal["teacher", "codec"]
    made_by: str  # SHA-256 of a teacher's weights; a codec's encoder with its version and settings
    points: tuple[CurvePoint, ...]
    validation: tuple[Measured, ...]  # each crop's bitstreams


class References(ResultFile):
    """coded/references.json."""

    format: Literal[1] = 1
    crops: tuple[tuple[str, int, int, int, int], ...]  # as in `CodingKey`
    curves: tuple[Reference, ...]
