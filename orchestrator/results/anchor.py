"""anchor.json and complexity.json: what every trial of a sweep is measured by (pure)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.results.format import ResultFile

ANCHOR, COMPLEXITY = "anchor.json", "complexity.json"


class AnchorFile(ResultFile):
    """anchor.json."""

    format: Literal[1] = 1
    anchor: Anchor
    digest: str  # of the anchor; every rung of the sweep has it
    mean_log_lagrangian: dict[str, float]  # teacher -> mean over lambdas of ln(bpp + lambda * distortion)
    # of the anchor's network; None: the file was written before it was kept
    complexity: Annotated[Complexity | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _is_unchanged(self) -> Self:
        if self.anchor.digest != self.digest:
            raise ValueError(f"the anchor was changed: its digest is {self.digest}, its content's {self.anchor.digest}")
        return self


class Complexities(ResultFile):
    """complexity.json."""

    format: Literal[1] = 1
    classes: dict[str, Complexity]  # by complexity class
