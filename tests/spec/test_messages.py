"""The words of messages: what a field of each kind takes, how values are shown, and tables."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from pydantic import Field, ValidationError

from orchestrator.spec.messages import SpecError, columns, explain, one_of, shown, without_credentials
from orchestrator.spec.section import Section


class Part(Section):
    low: float = 0.0
    high: float = 1.0


class Kinds(Section):
    """A field of each kind."""

    count: Annotated[int, Field(ge=1, lt=10)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    side: Annotated[int, Field(multiple_of=64)] = 64
    switch: bool = True
    text: str = ""
    name: Annotated[str, Field(pattern="^a*$")] = "a"
    short: Annotated[str, Field(pattern="^a*$", max_length=3)] = "a"
    choice: Literal["a", "b", 3] = "a"
    part: Part = Part()
    half: Annotated[float | None, Field(gt=0)] = None
    spare: Part | None = None
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = (Part(),)
    pair: tuple[int, int] = (1, 2)
    table: dict[str, Annotated[float, Ge(0)]] = Field(default_factory=dict)


LETTERS = "letters, digits, dots, underscores and hyphens, the first a letter or digit"
LINES: dict[str, tuple[Any, str]] = {
    "count": (10, "count: 10 is not allowed: a whole number of at least 1 and below 10"),
    "share": ("x", "share: 'x' is not allowed: a finite number above 0 and of at most 1"),
    "side": (65, "side: 65 is not allowed: a whole number in multiples of 64"),
    "switch": (1, "switch: 1 is not allowed: true or false"),
    "text": (1.5, 'text: 1.5 is not allowed: it is a number; as text it is "1.5", with its quotes'),
    "name": ("b", f"name: 'b' is not allowed: {LETTERS}"),
    "short": ("aaaa", f"short: 'aaaa' is not allowed: at most 3 {LETTERS}"),
    "choice": (None, "choice: nothing is not allowed: a, b or 3"),
    "part": (3, "part: 3 is not allowed: a section with low, high"),
    "half": (0, "half: 0 is not allowed: a finite number above 0 or nothing"),
    "spare": (3, "spare: 3 is not allowed: a section with low, high or nothing"),
    "spare.lo": ({"lo": 1.0}, "spare.lo: unknown key, did you mean low? allowed are low, high"),
    "spare.low": ({"low": "x"}, "spare.low: 'x' is not allowed: a finite number"),
    "part.low": ({"low": "x"}, "part.low: 'x' is not allowed: a finite number"),
    "part.lo": ({"lo": 1.0}, "part.lo: unknown key, did you mean low? allowed are low, high"),
    "parts": ([], "parts: [] is not allowed: a list of at least 1, each a section with low, high"),
    "parts.1.wide": ([{}, {"wide": 1}], "parts.1.wide: unknown key, allowed are low, high"),
    "pair": ([1, 2, 3], "pair: [1, 2, 3] is not allowed: a list of 2, each a whole number"),
    "pair.1": ([1], "pair.1: missing: a whole number"),
    "table": (3, "table: 3 is not allowed: a section whose every value is a finite number of at least 0"),
    "table.a": ({"a": -1}, "table.a: -1 is not allowed: a finite number of at least 0"),
}


@pytest.mark.parametrize("field", LINES)
def test_what_a_field_takes_is_said_in_words(field: str) -> None:
    value, line = LINES[field]
    with pytest.raises(ValidationError) as raised:
        Kinds.model_validate_json(json.dumps({field.partition(".")[0]: value}))
    assert explain(raised.value, Kinds) == [line]


def test_values_are_shown_short_and_without_credentials() -> None:
    assert shown({"a": [1, None], "b": (True, "x")}) == "{a: [1, nothing], b: [true, 'x']}"
    assert shown({"\r": 1, "a b": 2, "s3://k:s@b": 3, 4: 5}) == "{'\\r': 1, 'a b': 2, 's3://***@b': 3, 4: 5}"
    assert shown([0] * 40) == f"{str([0] * 40)[:77]}..."
    assert shown("a" * 198) == repr("a" * 198) and shown("a" * 199) == f"'{'a' * 196}..."
    assert shown("s3://key:secret@bucket/x?token=1#2") == "'s3://***@bucket/x?***'"


def test_credentials_go_and_files_stay() -> None:
    several = "from https://u:p@host/a?b to s3://key:a/b@bucket/x#c, then"
    assert without_credentials(several) == "from https://***@host/a?*** to s3://***@bucket/x?*** then"
    assert without_credentials("file:///a@b?c#d") == "file:///a@b?c#d"


def test_choices_and_columns() -> None:
    assert (one_of("a"), one_of("ab"), one_of([1, 2, 3])) == ("a", "a or b", "1, 2 or 3")
    rows = [("name", "MB", "what"), ("a", "1.5", "x"), ("longer", "10.5", "")]
    assert columns(rows, right=(1,)) == ["name      MB  what", "a        1.5  x", "longer  10.5"]
    assert columns(rows[:2]) == ["name  MB   what", "a     1.5  x"]


def test_an_error_of_several_problems_has_a_line_for_each() -> None:
    error = SpecError(["a: 1\nis", "b: 2"])
    assert len(str(error).splitlines()) == len(error.problems) == 2 and error.problems[1] == "b: 2"
