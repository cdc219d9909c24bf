"""What a tree of this project looks like from outside, measured on its code: `python -m testing.house [ROOT]`.

Files a folder; arrows between rooms that run up, and circles of rooms (see imports.py); files and functions that are
too long; mappings of anything, such as `dict[str, Any]`, in signatures and in the fields of classes. It measures an
older commit's tree as well, so that two can be compared.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.spec.messages import Parser
from testing.imports import Arrow, Module, arrows, circles, imported, modules, upward

PRODUCT = ("jobs", "clusters", "orchestrator", "models", "lic_codec")
MEASURED = (*PRODUCT, "benchmarks", "testing")  # whose files and functions are to be short
LONGEST_FILE, LONGEST_FUNCTION = 300, 60  # lines

MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}


@dataclass(frozen=True, kw_only=True)
class House:
    """What was measured; places are `path:line`."""

    folders: Mapping[str, int]  # Python files directly in each
    arrows: int
    up: tuple[Arrow, ...]
    circles: tuple[tuple[str, ...], ...]
    long_files: Mapping[str, int]  # of MEASURED: path -> lines
    long_functions: Mapping[str, int]  # of MEASURED: path:line name -> lines
    loose: Mapping[str, int]  # of PRODUCT: path, dot-separated name of function or field -> mappings of anything


def measure(root: Path) -> House:
    """Of the tree at a root; packages that it does not have count nothing."""
    everything = modules(root, (*MEASURED, "tests"))
    counted = arrows(everything)
    measured = [module for module in everything.values() if module.path.parts[0] in MEASURED]
    functions = {
        f"{module.path}:{function.lineno} {name}": (function.end_lineno or 0) - function.lineno + 1
        for module in measured
        for name, function in _functions(module.tree)
    }
    return House(
        folders=Counter(module.path.parent.as_posix() for module in everything.values()),
        arrows=len(counted),
        up=tuple(upward(counted)),
        circles=tuple(tuple(rooms) for rooms in circles(counted)),
        long_files={str(module.path): module.lines for module in measured if module.lines > LONGEST_FILE},
        long_functions={place: lines for place, lines in functions.items() if lines > LONGEST_FUNCTION},
        loose=_loose({name: module for name, module in everything.items() if module.path.parts[0] in PRODUCT}),
    )


def _functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(dotted name, function) of all functions and methods, also of those inside others."""
    for node in ast.iter_child_nodes(tree):
        within = inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{inside}{node.name}", node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            within = f"{inside}{node.name}."
        yield from _functions(node, within)


def _loose(product: Mapping[str, Module]) -> dict[str, int]:
    """Also where an alias names it: `Record = dict[str, Any]`."""
    aliases: set[str] = set()
    before = -1
    while len(aliases) != before:  # until no alias of an alias is new
        before = len(aliases)
        for module in product.values():
            names = _names(module)
            for node in module.tree.body:
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    if isinstance(target, ast.Name) and _is_loose(node.value, names, aliases):
                        aliases.add(f"{module.name}.{target.id}")
    counted: Counter[str] = Counter()
    for module in product.values():
        names = _names(module)
        for name, annotation in _annotations(module.tree):
            times = sum(_is_loose(node, names, aliases) for node in ast.walk(annotation) if isinstance(node, ast.expr))
            if times:
                counted[f"{module.path} {name}"] += times
    return dict(counted)


def _names(module: Module) -> dict[str, str]:
    """What the names of a module stand for, as dotted names: its own and the imported ones."""
    own = {
        node.targets[0].id: f"{module.name}.{node.targets[0].id}"
        for node in module.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return own | dict(imported(module))


def _is_loose(node: ast.expr, names: Mapping[str, str], aliases: set[str]) -> bool:
    """Whether an expression is `dict[str, Any]`, another mapping of that kind, or an alias of one."""
    if isinstance(node, ast.Subscript):
        return ast.unparse(node.value).rpartition(".")[2] in MAPPINGS and ast.unparse(node.slice) == "(str, Any)"
    if isinstance(node, ast.Name | ast.Attribute):
        first, dot, rest = ast.unparse(node).partition(".")
        return f"{names.get(first, first)}{dot}{rest}" in aliases
    return False


def _annotations(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """(name, annotation) of every parameter, every result and every field of a class."""
    for name, function in _functions(tree):
        given = function.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if argument is not None and argument.annotation is not None:
                yield name, argument.annotation
        if function.returns is not None:
            yield name, function.returns
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    yield f"{node.name}.{ast.unparse(field.target)}", field.annotation


def table(house: House) -> str:
    """The figures one below the other, and what they are made of."""
    most = sorted(house.folders.items(), key=lambda row: (-row[1], row[0]))
    rows: list[tuple[str, int, list[str]]] = [
        ("most files in a folder", most[0][1] if most else 0, [f"{count:4} {folder}" for folder, count in most]),
        ("arrows between rooms", house.arrows, []),
        ("arrows up", len(house.up), [f"{room} -> {other}" for room, other in house.up]),
        ("circles", len(house.circles), [", ".join(rooms) for rooms in house.circles]),
        (f"files over {LONGEST_FILE} lines", len(house.long_files), _longest(house.long_files)),
        (f"functions over {LONGEST_FUNCTION} lines", len(house.long_functions), _longest(house.long_functions)),
        ("mappings of anything in signatures", sum(house.loose.values()), _longest(house.loose)),
    ]
    return "\n".join(
        line for name, figure, details in rows for line in (f"{name:36}{figure:5}", *(f"    {row}" for row in details))
    )


def _longest(places: Mapping[str, int]) -> list[str]:
    return [f"{figure:4} {place}" for place, figure in sorted(places.items(), key=lambda row: (-row[1], row[0]))]


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    print(table(measure(parser.parse_args(argv).root)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
