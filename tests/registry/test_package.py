"""What is shipped with a version is all that its code needs."""

from __future__ import annotations

import base64
import json
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from orchestrator.registry import package
from orchestrator.results.bundles import unpacked
from testing.imports import imported, modules
from tests.registry.somebody import bundle_of
from tests.results.builders import coded_student

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    bundle = unpacked(bundle_of(folder / "bundle", b"entropy"), "it")
    content = package.Content(student=coded_student(), weights=b"weights", bundle=bundle, card="# card", plot="<svg/>")
    package.save(folder / "model", content)
    return folder / "model"


def test_a_version_requires_what_its_code_imports_and_no_torch(saved: Path) -> None:
    written = (saved / "requirements.txt").read_text().splitlines()
    codec = modules(ROOT, ["lic_codec"])
    shipped = [file for file in codec.values() if file.path.name in package.SHIPPED_CODE]
    shipped.append(modules(ROOT, ["orchestrator"])["orchestrator.registry.registered_codec"])
    roots = {name.partition(".")[0] for module in shipped for _, name in imported(module)}
    needed = roots - {"lic_codec", "__future__"} - sys.stdlib_module_names
    own = {name for module in shipped for _, name in imported(module) if name.startswith("lic_codec")}
    names = {module.name for module in shipped}
    assert [name for name in own if name not in names and name.rpartition(".")[0] not in names - {"lic_codec"}] == []
    distributions = packages_distributions()  # MLflow's folder is that of three
    required = {line.partition("==")[0] for line in written}
    assert [name for name in needed if not required & {*distributions[name]}] == []
    assert required == {"mlflow", "onnxruntime", "numpy", "constriction", "pillow"}
    assert all("==" in line for line in written)


def test_the_shipped_code_is_what_coding_takes(saved: Path) -> None:
    flavour = yaml.safe_load((saved / "MLmodel").read_text())["flavors"]["python_function"]
    shipped = {path.name for path in (saved / flavour["code"]).rglob("*") if path.is_file()}
    assert shipped == {*package.SHIPPED_CODE}


def test_a_version_says_what_goes_in_and_what_comes_out(saved: Path) -> None:
    signature = yaml.safe_load((saved / "MLmodel").read_text())["signature"]
    column = [{"type": "binary", "name": "data", "required": True}]
    assert json.loads(signature["inputs"]) == json.loads(signature["outputs"]) == column
    assert json.loads(signature["params"]) == [{"name": "rate", "type": "double", "default": 1.0, "shape": None}]
    example = json.loads((saved / "serving_input_example.json").read_text())
    assert base64.b64decode(example["dataframe_split"]["data"][0][0]).startswith(b"\x89PNG")


def test_a_version_has_its_parts_beside_it(saved: Path) -> None:
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    own = {"README.md", "rate-distortion.svg", "artifacts/weights.safetensors", "artifacts/figures.json"}
    assert files >= own | {"artifacts/bundle/codec.json", "artifacts/bundle/entropy.npz"}
