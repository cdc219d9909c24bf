"""A loss as a specification writes it: a weight may be a range that a search draws from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from orchestrator.spec.loss import Loss, LossWeights, Method
from orchestrator.spec.section import Section, refusal
from orchestrator.spec.terms import TERMS, field_per_term


class Range(Section):
    """Bounds between which a weight is drawn evenly on a log scale."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{{low: {self.low}, high: {self.high}}}"


def _weight(value: Any) -> float | Range | None:
    """One check for all types of a weight: pydantic's own would give one line per type."""
    if value is None or isinstance(value, Range):
        return value
    if _is_number(value) and value >= 0:
        return float(value)
    if isinstance(value, Mapping) and value.keys() == {"low", "high"}:
        low, high = value["low"], value["high"]
        if _is_number(low) and _is_number(high) and 0 < low < high:
            return Range(low=float(low), high=float(high))
    raise ValueError("a finite number of at least 0, or a range {low: 0.003, high: 3.0} with 0 < low < high")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Weight = Annotated[float | Range | None, BeforeValidator(_weight)]


_Weights: Any = field_per_term(Weight, None, rate_distortion=(Weight, None))  # Any: as in loss.py


class LossSpace(_Weights, Method):
    """Losses that differ in their ranged weights alone. The fields are those of `Loss`."""

    @property
    def ranges(self) -> dict[str, Range]:
        """Range by the name of the weight."""
        weights = {name: getattr(self, name) for name in LossWeights.model_fields}
        return {name: weight for name, weight in weights.items() if isinstance(weight, Range)}

    def at(self, weights: Mapping[str, float]) -> Loss:
        """The loss with these weights in place of the ranges."""
        return Loss(**{name: getattr(self, name) for name in Loss.model_fields} | dict(weights))

    @property
    def lowest(self) -> Loss:
        """The loss with every ranged weight at its low end: all losses of the space have its terms."""
        return self.at({name: bounds.low for name, bounds in self.ranges.items()})

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        lowest = self.lowest
        yield from lowest.problems()
        if lowest.is_control and self.ranges:
            name, bounds = next(iter(self.ranges.items()))
            yield refusal(name, bounds, "a number, since a loss that reads nothing of a teacher is a control")

    @model_validator(mode="after")
    def _weighs_something(self) -> LossSpace:
        weights = [getattr(self, name) for name in TERMS]
        if self.preset is None and not self.phases and self.rate_distortion == 0 and not any(weights):
            raise ValueError("at least one weight above 0")
        return self
