"""Who may import whom, as a table, and the checker that reads it: `test_imports.py` holds the code to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Modules whose dotted name matches `who` (and none of `but`) never import anything below the names in `never`."""

    who: tuple[str, ...]
    never: tuple[str, ...]
    but: tuple[str, ...] = ()


PURE = ("evaluation.bd_rate", "evaluation.front", "photographs.crops", "features.format.*", "sweep.choose.*", "spec.*")
PURE += ("sweep.forecast.calibration", "sweep.forecast.forecast", "sweep.forecast.text", "worker_settings")
PURE += ("evaluation.anchor", "results.account", "results.anchor", "results.format", "results.front")

# What runs as Ray actors, tasks or workers; the distillation loop itself knows nothing of Ray.
RAY = ("orchestrator.sweep.*", "orchestrator.features.fill.fill", "orchestrator.teacher")

RULES = (
    # One arrow: jobs -> orchestrator -> models. clusters renders launch files from values; only what launches uses it.
    Rule(who=("orchestrator", "orchestrator.*"), never=("jobs", "clusters", "tests")),
    Rule(who=("models", "models.*"), never=("jobs", "orchestrator", "clusters", "tests")),
    Rule(who=("clusters", "clusters.*"), never=("jobs", "orchestrator.sweep", "tests", "torch")),
    Rule(who=("jobs", "jobs.*"), never=("tests",)),
    Rule(who=("jobs", "jobs.*"), but=("jobs.launch",), never=("clusters",)),
    Rule(
        who=("orchestrator.*",),
        but=("orchestrator.sweep", "orchestrator.sweep.*"),
        never=("orchestrator.sweep",),
    ),
    # One module for each outside system.
    Rule(who=("*",), but=("orchestrator.store.s3",), never=("fsspec", "boto3", "botocore", "aiobotocore", "s3fs")),
    Rule(
        who=("*",), but=("orchestrator.registry.registry", "orchestrator.registry.registered_codec"), never=("mlflow",)
    ),
    Rule(who=("*",), but=("orchestrator.distill.engine",), never=("deepspeed",)),
    Rule(who=("*",), but=("orchestrator.sweep.choose.search",), never=("optuna",)),
    Rule(
        who=("*",), but=(*RAY, "jobs", "jobs.*", "clusters.ray_cluster.submit", "clusters.slurm.joined"), never=("ray",)
    ),
    # The mathematics, and what a user may write.
    Rule(who=tuple(f"orchestrator.{name}" for name in PURE), never=("torch", "ray", "mlflow", "boto3", "deepspeed")),
)


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the project's packages."""
    files = [
        path for package in ("jobs", "orchestrator", "models", "clusters") for path in (root / package).rglob("*.py")
    ]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, also those inside functions; relative ones made absolute."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            yield from ((node.lineno, a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def violations(root: Path, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """One line for each import that a rule forbids."""
    return [
        f"{path.relative_to(root)}:{line}: {name} imports {target}"
        for name, path in sorted(modules(root).items())
        for line, target in imported(name, path)
        for rule in rules
        if _matches(name, rule.who) and not _matches(name, rule.but) and _below(target, rule.never)
    ]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _below(target: str, names: tuple[str, ...]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names)
