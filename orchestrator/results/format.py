"""What the typed files of a run folder have in common: JSON with the number of its format (pure)."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from models.one_line import OneLineError
from orchestrator.spec.messages import shown

INSTEAD = "go on with the version that wrote it (versions.json names it), or give the sweep another name"

Number = int | float
# None: not measured, and not in the file
OrNotMeasured = Annotated[float | None, Field(exclude_if=lambda value: value is None)]


class FormatError(OneLineError, ValueError):
    """A file that this version cannot read; the message is one line."""


class StrictModel(BaseModel):
    """Frozen, no unknown keys, no silent conversions, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ResultFile(StrictModel):
    """A whole file. Each kind of file sets `format` to a Literal, and raises it when its fields change."""

    format: int


File = TypeVar("File", bound=BaseModel)  # with a field `format` whose default is the number that it reads


def parse(data: bytes, model: type[File], where: str) -> File:
    """The content of a file.

    Args:
        data: of the file.
        model: its kind.
        where: what the file is called in messages.

    Raises:
        FormatError: it is not JSON, is of another format, or does not have the fields of this one.
    """
    wanted = model.model_fields["format"].default
    content = json_value(data, where)
    number = content.get("format") if isinstance(content, dict) else None
    if number != wanted:
        actual = "no format number" if number is None else f"format {shown(number)}"
        raise FormatError(f"{where}: {actual}, but this version reads format {wanted}: {INSTEAD}")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise FormatError(f"{where}: {field}: {first['msg']}, in a file of format {wanted}: {INSTEAD}") from None


def json_value(data: bytes, where: str) -> JsonValue:
    """The value in a JSON file, which `where` names in messages. Raises FormatError: it is not JSON, or cut off."""
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise FormatError(f"{where}: no JSON, or cut off: {what}") from None
    return value


def serialised(value: ResultFile) -> bytes:
    """The content of a file. Raises ValueError for values that JSON does not have, such as NaN."""
    return (json.dumps(value.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()
