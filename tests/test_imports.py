"""The import contracts of pyproject.toml: the code keeps them, each sees a violation; and the driver loads no torch."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = [contract["name"] for contract in LINTER["contracts"]]

# (contract, file, what is added to it)
PLANTED = [
    ("one arrow through the packages", "models/ladder.py", "from orchestrator.spec.spec import Spec"),
    ("one arrow through the packages", "jobs/evaluate.py", "import benchmarks.common.facts"),
    ("nothing imports the tests", "orchestrator/report/page.py", "from tests.features import filler"),
    ("no circles", "orchestrator/spec/messages.py", "from orchestrator.spec.recipe import Recipe"),
    ("rooms of orchestrator", "orchestrator/distill/loop.py", "def late():\n    import orchestrator.sweep.cluster"),
    ("rooms of orchestrator", "orchestrator/lounge.py", "import json"),
    ("rooms of the sweep", "orchestrator/sweep/cluster.py", "from orchestrator.sweep.choose import rungs"),
    ("rooms of the features", "orchestrator/features/read/reader.py", "import orchestrator.features.fill.claim"),
    ("clusters are used by jobs.launch alone", "jobs/sweep_feds.py", "from clusters.slurm import script"),
    ("clusters know neither sweep nor torch", "clusters/job.py", "import models.bitstream"),  # which imports torch
    ("the codec stands alone", "lic_codec/codec.py", "import torch"),
    ("S3 in one module", "orchestrator/features/keep/prune.py", "from s3fs.core import S3FileSystem"),
    ("MLflow in one room", "orchestrator/report/page.py", "import mlflow.tracking"),
    ("DeepSpeed in one engine and its process group", "orchestrator/distill/loop.py", "from deepspeed import zero"),
    ("Optuna in one module", "orchestrator/sweep/run.py", "import optuna"),
    ("Ray where actors and tasks are", "orchestrator/distill/loop.py", "import ray.tune"),
    ("mathematics, formats and specification are pure", "orchestrator/evaluation/front.py", "from torch import nn"),
    # Indirectly: the ladder imports torch.
    ("mathematics, formats and specification are pure", "orchestrator/photographs/crops.py", "import models.ladder"),
]

HEAVY = ("torch", "torchvision", "deepspeed", "compressai")
DRIVER_SIDE = (
    "jobs.cache_features",
    "jobs.register_front",
    "jobs.sweep_feds",
    "orchestrator.distill.trial_data",
    "orchestrator.photographs.crops",
    "orchestrator.evaluation.bd_rate",
    "orchestrator.evaluation.front",
    "orchestrator.features.fill.fill",
    "orchestrator.features.format.key",
    "orchestrator.photographs.photos",
    "orchestrator.registry.live",
    "orchestrator.registry.registry",
    "orchestrator.report.page",
    "orchestrator.results.anchor",
    "orchestrator.results.front",
    "orchestrator.spec.spec",
    "orchestrator.store.store",
    "orchestrator.sweep.prefill",
    "orchestrator.sweep.run",
    "orchestrator.sweep.choose.rungs",
    "orchestrator.sweep.tune_scheduler",
    "orchestrator.sweep.choose.space",
    "orchestrator.sweep.gang.trial",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the Python files of all packages, with pyproject.toml."""
    tree = tmp_path_factory.mktemp("tree")
    for file in sources(ROOT):
        copy = tree / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    shutil.copyfile(ROOT / "pyproject.toml", tree / "pyproject.toml")
    return tree


def test_every_module_keeps_the_contracts(tree: Path) -> None:
    code, broken = lint_imports(tree)
    assert (code, broken) == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "path", "line"), PLANTED)
def test_a_planted_violation_breaks_its_contract(tree: Path, contract: str, path: str, line: str) -> None:
    file = tree / path
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    try:
        code, broken = lint_imports(tree)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)
    assert code == 1
    assert contract in broken


def test_every_contract_has_a_planted_violation() -> None:
    assert {contract for contract, _, _ in PLANTED} == set(CONTRACTS)


def test_no_import_is_hidden_in_a_call() -> None:
    """Ruff bans `importlib.import_module`, but sees no builtin."""
    hidden = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sources(ROOT)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "__import__"
    ]
    assert hidden == []


def test_the_driver_side_loads_no_torch() -> None:
    assert _heavy_after(DRIVER_SIDE) == {}


def test_loading_torch_would_be_seen() -> None:
    assert (
        _heavy_after(("orchestrator.spec.spec", "orchestrator.distill.loop"))["orchestrator.distill.loop"][0] == "torch"
    )


def sources(root: Path) -> Iterator[Path]:
    """The files that the contracts are about."""
    for package in LINTER["root_packages"]:
        yield from (root / package).rglob("*.py")


def lint_imports(tree: Path) -> tuple[int, list[str]]:
    """(exit code, names of the broken contracts) of the linter in a tree."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    broken = re.findall(r"^(.+) BROKEN", done.stdout, flags=re.MULTILINE)
    assert f"Contracts: {len(CONTRACTS) - len(broken)} kept, {len(broken)} broken." in done.stdout, done
    return done.returncode, broken


def _heavy_after(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Module -> heavy packages, for the modules after whose import a fresh interpreter holds any."""
    code = f"""
import importlib, json, sys
loaded = {{}}
for name in {names!r}:
    importlib.import_module(name)
    if heavy := [package for package in {HEAVY!r} if package in sys.modules]:
        loaded[name] = heavy
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return heavy
