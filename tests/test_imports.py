"""The rules of `import_rules.py`: the code keeps them, the checker sees a violation, the driver loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_rules import RULES, modules, violations

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "deepspeed", "compressai")
DRIVER_SIDE = (
    "jobs.cache_features",
    "jobs.sweep_feds",
    "orchestrator.distill.trial_data",
    "orchestrator.photographs.crops",
    "orchestrator.evaluation.bd_rate",
    "orchestrator.evaluation.front",
    "orchestrator.features.fill.fill",
    "orchestrator.features.format.key",
    "orchestrator.photographs.photos",
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


def test_every_module_keeps_the_rules() -> None:
    assert violations(ROOT) == []


def test_the_rules_name_modules_that_exist() -> None:
    """A renamed module would leave its rule without anything to hold."""
    known = modules(ROOT)
    named = {name for rule in RULES for name in (*rule.who, *rule.but) if "*" not in name}
    assert sorted(named - set(known)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("orchestrator/plan.py", "import jobs.sweep_feds"),
        ("models/ladder.py", "from orchestrator import spec"),
        ("models/ladder.py", "from orchestrator.spec.spec import Spec"),
        ("orchestrator/distill/loop.py", "def late():\n    from orchestrator.sweep import gang"),
        ("orchestrator/distill/loop.py", "from ..sweep.gang import Gang"),
        ("orchestrator/features/read/reader.py", "from ... import sweep"),
        ("orchestrator/features/read/reader.py", "import boto3"),
        ("orchestrator/evaluation/front.py", "from torch import nn"),
        ("orchestrator/distill/loop.py", "import ray.tune"),
        ("orchestrator/report/page.py", "import mlflow"),
        ("orchestrator/distill/loop.py", "from deepspeed import zero"),
        ("jobs/sweep_feds.py", "import importlib\nimportlib.import_module('s3fs.core')"),
        ("models/ladder.py", "import ray"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("import json\n")
    assert violations(tmp_path) == []
    file.write_text(f"import json\n{line}\n")
    assert [found.partition(":")[0] for found in violations(tmp_path)] == [path]


def test_what_a_rule_allows_is_not_found(tmp_path: Path) -> None:
    for path, line in {
        "orchestrator/store/s3.py": "import boto3, fsspec",
        "orchestrator/sweep/gang/trial.py": "import ray\nfrom orchestrator.distill import loop",
        "orchestrator/raycast.py": "import rayon",
        "jobs/sweep_feds.py": "from orchestrator.sweep import run",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(line)
    assert violations(tmp_path) == []


def test_the_driver_side_loads_no_torch() -> None:
    assert _heavy_after(DRIVER_SIDE) == {}


def test_loading_torch_would_be_seen() -> None:
    assert (
        _heavy_after(("orchestrator.spec.spec", "orchestrator.distill.loop"))["orchestrator.distill.loop"][0] == "torch"
    )


def _heavy_after(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Module -> heavy packages, for the modules after whose import a fresh interpreter holds any."""
    code = f"""
import importlib, json, sys
found = {{}}
for name in {names!r}:
    importlib.import_module(name)
    if heavy := [each for each in {HEAVY!r} if each in sys.modules]:
        found[name] = heavy
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
