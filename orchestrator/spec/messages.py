"""One line for each problem: the field, the value and what is allowed.

The lines are made from pydantic's errors and from the fields' own declarations.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models.one_line import OneLineParser, one_line

_PLAIN = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
_BOUNDS = (
    ("ge", "of at least"),
    ("gt", "above"),
    ("le", "of at most"),
    ("lt", "below"),
    ("multiple_of", "in multiples of"),
)


class SpecError(ValueError):
    """A specification that cannot be run: the message has one line for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(map(one_line, problems))

    def __str__(self) -> str:
        return "\n".join(self.problems)


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for every problem that pydantic found, in its order.

    pydantic counts a list's valid entries alone, so one with a wrong entry may be called too short as well.
    """
    problems = error.errors(include_url=False)
    wrong = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    found = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in wrong]
    return [without_credentials(_line(problem, model)) for problem in found]


class Parser(OneLineParser):
    """As the base; its errors show no credentials."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        super().error(without_credentials(message))


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, and without credentials in URLs."""
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{_key(key)}: {shown(entry)}" for key, entry in value.items()) + "}"
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(shown(entry) for entry in value) + "]"
    elif isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    else:
        text = repr(without_credentials(value)) if isinstance(value, str) else str(value)
    limit = 200 if isinstance(value, str) else 80  # a path says most at its end
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _key(key: object) -> str:
    """A mapping's key as `shown` writes it: without quotes where it needs none."""
    text = without_credentials(str(key))
    return text if re.fullmatch(r"[\w.-]+", text) else repr(text)


def without_credentials(text: str) -> str:
    """The text with user, password and query of every URL in it replaced by ***; file:// has none of them."""
    text = re.sub(r"(?<!file)://\S*@", "://***@", text)  # up to the last @: a secret key may hold slashes
    return re.sub(r"((?<!file)://[^\s?#]*)[?#]\S*", r"\1?***", text)


def one_of(choices: Iterable[object]) -> str:
    """`a, b or c`."""
    names = [str(choice) for choice in choices]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def counted(count: float, one: str, several: str | None = None) -> str:
    """`1 loss`, `2 losses`; without `several` an s is added."""
    return f"{count:g} {one if count == 1 else several or one + 's'}"


def columns(rows: Iterable[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """One line per row. All cells of a column have the same width; columns in `right` are aligned to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _line(problem: ErrorDetails, model: type[BaseModel]) -> str:
    path = tuple(problem["loc"])
    dotted = ".".join(str(part) for part in path) or "the specification"
    if problem["type"] == "extra_forbidden":
        section = _section_of(_at(model, path[:-1])[0])
        keys = list(section.model_fields)
        near = difflib.get_close_matches(str(path[-1]), keys, n=1)
        hint = f", did you mean {near[0]}?" if near else ","
        return f"{dotted}: unknown key{hint} allowed are {', '.join(keys)}"
    allowed = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else _allowed(*_at(model, path))
    if problem["type"] == "missing":
        return f"{dotted}: missing: {allowed}"
    if problem["type"] == "string_type" and isinstance(value := problem["input"], (bool, int, float)):
        kind = "true or false" if isinstance(value, bool) else "a number"
        instead = f'it is {kind}; as text it is "{shown(value)}", with its quotes'
        return f"{dotted}: {shown(value)} is not allowed: {instead}"
    return f"{dotted}: {shown(problem['input'])} is not allowed: {allowed}"


def _at(model: Any, path: tuple[int | str, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The declared type at a path, with its constraints."""
    kind, constraints = model, ()
    for part in path:
        kind = _section_of(kind)
        if get_origin(kind) is dict:
            kind, constraints = get_args(kind)[1], ()
        elif isinstance(part, int):
            arguments = get_args(kind)
            kind = arguments[0] if arguments[-1] is Ellipsis else arguments[min(part, len(arguments) - 1)]
            constraints = ()
        else:
            field = kind.model_fields[part]
            kind, constraints = field.annotation, tuple(field.metadata)
        if get_origin(kind) is Annotated:
            kind, *inner = get_args(kind)
            constraints = (*constraints, *inner)
    return kind, constraints


def _section_of(kind: Any) -> Any:
    """Of a section and nothing, the section: only there is a part."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next((member for member in get_args(kind) if get_origin(member) or _is_section(member)), kind)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _allowed(kind: Any, constraints: tuple[Any, ...]) -> str:
    """What a field takes, in words."""
    if get_origin(kind) is Annotated:
        kind, *inner = get_args(kind)
        return _allowed(kind, tuple(inner))
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return one_of("nothing" if member is type(None) else _allowed(member, constraints) for member in get_args(kind))
    if get_origin(kind) is dict:
        return f"a section whose every value is {_allowed(get_args(kind)[1], ())}"
    if get_origin(kind) is tuple:
        entries = get_args(kind)
        if entries[-1] is Ellipsis:
            return f"a list of at least {_least(constraints)}, each {_allowed(entries[0], ())}"
        return f"a list of {len(entries)}, each {_allowed(entries[0], ())}"
    if _is_section(kind):
        return f"a section with {', '.join(kind.model_fields)}"
    bounds = [
        f"{words} {getattr(constraint, name)}"
        for name, words in _BOUNDS
        for constraint in constraints
        if getattr(constraint, name, None) is not None
    ]
    pattern = next((c.pattern for c in constraints if getattr(c, "pattern", None)), None)
    if pattern:
        most = next((c.max_length for c in constraints if getattr(c, "max_length", None)), None)
        few = f"at most {most} " if most else ""
        return f"{few}letters, digits, dots, underscores and hyphens, the first a letter or digit"
    return " ".join([_PLAIN.get(kind, str(kind)), " and ".join(bounds)]).strip()


def _least(constraints: tuple[Any, ...]) -> int:
    return next((c.min_length for c in constraints if isinstance(c, annotated_types.MinLen)), 0)
