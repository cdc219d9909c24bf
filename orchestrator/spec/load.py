"""Reads a specification from its YAML file, with overrides from the command line, and writes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, overload

from pydantic import JsonValue, ValidationError

from orchestrator.spec.messages import SpecError, explain, shown, without_credentials
from orchestrator.spec.section import Section
from orchestrator.spec.spec import Spec
from orchestrator.spec.strict_yaml import YamlProblem, assign, parse, write

Loaded = TypeVar("Loaded", bound=Section)


@overload
def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec: ...
@overload
def load_spec(
    path: str | Path, overrides: Sequence[str] = (), *, model: type[Loaded], option: str = "--set"
) -> Loaded: ...
def load_spec(
    path: str | Path, overrides: Sequence[str] = (), *, model: type[Section] = Spec, option: str = "--set"
) -> Section:
    """The specification in a YAML file, with overrides such as `training.learning_rate=3e-4` or `students.0.N=12`.

    Another `model`, such as a recipe, is read by the same rules; `option` is the command line's option for overrides.

    Raises SpecError with every problem. What concerns several fields at once is checked only if each field is valid by
    itself.
    """
    try:
        data = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: cannot be read: it is not UTF-8 text"]) from None
    except YamlProblem as problem:
        raise SpecError([f"{path}: {problem}"]) from None
    except ValueError:  # a path with a NUL
        raise SpecError([f"{shown(str(path))}: cannot be read: no path has such characters"]) from None
    if not isinstance(data, dict):
        raise SpecError([f"{path}: {shown(data)} is not allowed: a section with {', '.join(model.model_fields)}"])
    problems = [problem for override in overrides for problem in _override(data, override, option)]
    if problems:
        raise SpecError(problems)
    try:
        # As JSON: from it a strict model takes arrays as tuples and whole numbers as floats, and converts nothing else.
        spec = model.model_validate_json(json.dumps(model.written_out(data)))
    except ValidationError as error:
        raise SpecError([f"{path}: {line}" for line in explain(error, model)]) from None
    problems = [f"{path}: {problem}" for problem in spec.problems()]
    if problems:
        raise SpecError(problems)
    return spec


def dump(spec: Section) -> str:
    """YAML that `load_spec` reads back to an equal specification."""
    return write(spec.model_dump(mode="json"))


def _override(data: dict[str, JsonValue], override: str, option: str) -> list[str]:
    """Applies one FIELD=VALUE to the data, in place; returns its problems."""
    field, separator, text = override.partition("=")
    path = field.strip().split(".")
    if not separator or not all(path):
        return [
            f"{option} {without_credentials(override)}: not allowed: FIELD=VALUE, such as training.learning_rate=3e-4"
        ]
    try:
        assign(data, path, parse(text))
    except YamlProblem as problem:
        return [without_credentials(f"{option} {field}: {problem}")]
    return []
