"""What every part of a specification is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.spec.messages import shown


class Section(BaseModel):
    """A part of the specification: frozen, no unknown keys, no silent conversions, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def written_out(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A specification file's data with what has a short form in its long one."""
        return data

    def problems(self) -> Iterator[str]:
        """What is wrong between fields that are each right, one line each."""
        return iter(())


def refusal(field: str, value: object, instead: str) -> str:
    """The line for a value that cannot be: its field, itself, what is allowed."""
    return f"{field}: {shown(value)} is not allowed: {instead}"
