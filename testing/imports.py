"""Who imports whom, from the code alone: modules, the arrows between the rooms of each package, and their circles.

The rooms of a package are its modules and its packages; an import from somewhere inside one room to somewhere inside
another is an arrow between the two. Imports inside functions count as well.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

FEW = 7  # rooms of a circle of which every order is tried

Arrow = tuple[str, str]  # of a room to a room that it imports, both dotted names


@dataclass(frozen=True, kw_only=True)
class Module:
    """A file of the tree."""

    name: str  # dotted
    path: Path  # from the root
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def package(self) -> str:
        """Where its relative imports start."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def modules(root: Path, packages: Sequence[str]) -> dict[str, Module]:
    """Dotted name -> module, of every Python file below the folders that there are."""
    read = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        text, relative = path.read_text(encoding="utf-8"), path.relative_to(root)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        read[name] = Module(name=name, path=relative, text=text, tree=ast.parse(text, str(relative)))
    return read


def imported(module: Module) -> Iterator[tuple[str, str]]:
    """(local name, dotted name) of everything that a module imports; relative imports made absolute."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.package.split(".")[: len(module.package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names)


def arrows(known: Mapping[str, Module]) -> Counter[Arrow]:
    """How many imports each arrow between two rooms of one package stands for."""
    counted: Counter[Arrow] = Counter()
    for module in known.values():
        for _, target in imported(module):
            while target and target not in known:  # a function or class of a module
                target = target.rpartition(".")[0]
            mine, theirs = module.name.split("."), target.split(".")
            shared = next((i for i, parts in enumerate(zip(mine, theirs, strict=False)) if len({*parts}) > 1), None)
            if target and shared is not None:
                counted[".".join(mine[: shared + 1]), ".".join(theirs[: shared + 1])] += 1
    return counted


def circles(counted: Mapping[Arrow, int]) -> list[list[str]]:
    """Rooms that import each other, directly or by way of others: a sorted list for each such group."""
    reached = {room: _reached(room, counted) for arrow in counted for room in arrow}
    groups = {
        tuple(sorted(other for other in reached[room] if room in reached[other])) for room in reached
    }  # fmt: skip
    return [list(group) for group in sorted(groups) if len(group) > 1]


def upward(counted: Mapping[Arrow, int]) -> list[Arrow]:
    """The arrows that run up: in the order of each circle's rooms that the fewest imports contradict."""
    up: list[Arrow] = []
    for rooms in circles(counted):
        inside = {arrow: imports for arrow, imports in counted.items() if {*arrow} <= {*rooms}}
        place = {room: i for i, room in enumerate(_order(rooms, inside))}
        up += [arrow for arrow in inside if place[arrow[0]] > place[arrow[1]]]
    return sorted(up)


def _order(rooms: list[str], inside: Mapping[Arrow, int]) -> Sequence[str]:
    """Upper rooms first."""
    if len(rooms) <= FEW:

        def against(order: Sequence[str]) -> int:
            return sum(imports for (room, other), imports in inside.items() if order.index(room) > order.index(other))

        return min(permutations(rooms), key=against)
    balance: dict[str, int] = defaultdict(int)
    for (room, other), imports in inside.items():
        balance[room] += imports
        balance[other] -= imports
    return sorted(rooms, key=lambda room: -balance[room])


def _reached(room: str, counted: Mapping[Arrow, int]) -> set[str]:
    """The rooms that can be reached from a room, by one arrow or more."""
    reached: set[str] = set()
    ahead = [room]
    while ahead:
        here = ahead.pop()
        fresh = {other for start, other in counted if start == here} - reached
        reached |= fresh
        ahead += fresh
    return reached
