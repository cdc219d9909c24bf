"""What is shipped with a version is all that its code needs."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

from orchestrator.registry import package
from testing.imports import imported, modules
from tests.results.builders import coded_student

ROOT = Path(__file__).parents[2]


def test_a_version_requires_what_its_code_imports(tmp_path: Path) -> None:
    package.save(tmp_path / "model", coded_student(), b"weights")
    written = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    shipped = [
        *modules(ROOT, ["models"]).values(),
        modules(ROOT, ["orchestrator"])["orchestrator.registry.registered_codec"],
    ]
    roots = {name.partition(".")[0] for module in shipped for _, name in imported(module)}
    needed = roots - {"models", "__future__"} - sys.stdlib_module_names
    distributions = packages_distributions()  # MLflow's folder is that of three
    required = {line.partition("==")[0] for line in written}
    assert [name for name in needed if not required & {*distributions[name]}] == []
    assert required <= {distribution for name in needed for distribution in distributions[name]}
    assert all("==" in line for line in written)


def test_the_shipped_code_is_all_of_models(tmp_path: Path) -> None:
    package.save(tmp_path / "model", coded_student(), b"weights")
    flavour = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())["flavors"]["python_function"]
    shipped = tmp_path / "model" / flavour["code"] / "models"
    assert {path.name for path in shipped.glob("*.py")} == {path.name for path in (ROOT / "models").glob("*.py")}
