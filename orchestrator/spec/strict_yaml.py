"""YAML read strictly, and written so that it reads back equal.

Numbers and booleans follow YAML 1.2's core schema, not 1.1's: `3e-4` is a number, `no` and `2026-01-01` and `012` are
text. A duplicate key is a problem: in plain YAML the first one would be lost silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

MOST_ENTRIES = 100_000  # of a document, each alias a copy: ten aliases in a row of nine levels are 10 ** 9


class YamlProblem(ValueError):
    """What is wrong with a YAML text and where, in one line."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, filled below

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            where = f"line {key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise YamlProblem(f"{where}: a key is not text")
            if key_node.value in seen:
                raise YamlProblem(f"{where}: the key {key_node.value} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, so both kinds of reader get text back."""

    yaml_implicit_resolvers = {key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012

    def ignore_aliases(self, data: object) -> bool:
        return True


_RULES = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
for _tag, _pattern, _first in _RULES:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str) -> Any:
    """The value of one YAML document, where an alias is a copy. Raises YamlProblem, one line."""
    try:
        # A subclass of SafeLoader; through JSON, as one entry's change must not reach another that shares its anchor.
        value = json.loads(json.dumps(_loaded(text)))
        json.dumps(value, ensure_ascii=False).encode()  # a ValueError for half a surrogate pair
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlProblem(f"{where}not YAML: {' '.join(str(error.problem or error.context).split())}") from None
    except yaml.YAMLError as error:
        raise YamlProblem(f"not YAML: {' '.join(str(error).split())}") from None
    except YamlProblem:
        raise
    except (ValueError, TypeError, RecursionError):
        kinds = "an endless alias, a nesting too deep, a number too long, half a surrogate pair or a tag"
        raise YamlProblem(f"not plain data: {kinds}") from None


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (entries := _entries(node, {})) > MOST_ENTRIES:
            raise YamlProblem(f"{entries} entries, each alias a copy: at most {MOST_ENTRIES} are allowed")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _entries(node: yaml.Node, known: dict[int, int]) -> int:
    """How many entries a node is when every alias is a copy; an endless alias is counted once, and found later."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 1
        inner = (part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_entries(part, known) for part in inner)
    return known[id(node)]


def write(data: object) -> str:
    """YAML of plain data (mappings, lists, text, numbers), keys in the given order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def assign(data: Any, path: Sequence[str], value: object) -> None:
    """Sets the value at a path such as ("students", "0", "N"), in place; missing sections on the way are created.

    Raises YamlProblem if the way leads through a list with no such entry, or through what is neither section nor list.
    """
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        here = ".".join(path[:depth]) or "the specification"
        if isinstance(data, list):
            if not part.isdecimal() or int(part) >= len(data):
                raise YamlProblem(f"{part} is not an entry of {here}: allowed are 0 to {len(data) - 1}")
            key: Any = int(part)
        elif isinstance(data, dict):
            key = part
            if not last and data.get(key) is None:
                data[key] = {}
        else:
            raise YamlProblem(f"{here} is neither a section nor a list, so it has no {part}")
        if last:
            data[key] = value
        data = data[key]
