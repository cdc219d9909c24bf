"""The base class of every part of a specification."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, JsonValue

from orchestrator.spec.messages import shown


class Section(BaseModel):
    """A part of the specification: frozen, no unknown keys, no silent conversions, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def written_out(cls, data: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """A specification file's data, with each short form replaced by its long form."""
        return data

    def problems(self) -> Iterator[str]:
        """What is wrong between fields that are each valid by themselves: one line a problem."""
        return iter(())


def refusal(field: str, value: object, instead: str) -> str:
    """The line for a value that is not allowed: the field, the value, and what is allowed instead."""
    return f"{field}: {shown(value)} is not allowed: {instead}"
