"""What `ray job submit --working-dir .` uploads: measured with the function that it packs with."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from orchestrator.spec.load import load_spec

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 32 * 2**20  # the studies' teachers are 15 MiB of it
QUICKSTART = load_spec(ROOT / "jobs/specs/quickstart.yaml")
NEEDED = [
    "jobs/sweep_feds.py",
    "jobs/specs/quickstart.yaml",
    "orchestrator/spec/spec.py",
    "orchestrator/sweep/front/assets/timed.webp",
    "models/ladder.py",
    "pyproject.toml",
    f"{QUICKSTART.photographs.train}/",
    f"{QUICKSTART.photographs.validation}/",
    *(teacher.weights for teacher in QUICKSTART.teachers),
    *(str(file.relative_to(ROOT)) for file in (ROOT / "benchmarks/teachers").glob("*.safetensors")),
]
UNWANTED = (".git/", ".venv/", "runs/", "build/", ".mypy_cache/", ".import_linter_cache/", ".pytest_cache/")


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_the_upload_is_small_and_complete(tmp_path: Path, with_gitignore: bool) -> None:
    package = _pack(ROOT, tmp_path, with_gitignore)
    names = ZipFile(package).namelist()
    assert package.stat().st_size < LIMIT
    assert [wanted for wanted in NEEDED if not any(name.startswith(wanted) for name in names)] == []
    assert [name for name in names if name.startswith(UNWANTED) or "__pycache__" in name] == []


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_results_and_caches_stay_behind(tmp_path: Path, with_gitignore: bool) -> None:
    tree = tmp_path / "tree"
    for path in ("runs/store/y.bin", "runs/a/mlflow.db", ".venv/x", ".git/x", "tests/x.py", "jobs/run.py", "a/runs/x"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"x")
    for ignore_file in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / ignore_file, tree)
    names = ZipFile(_pack(tree, tmp_path, with_gitignore)).namelist()
    assert sorted(names) == [".gitignore", ".rayignore", "a/runs/x", "jobs/run.py"]


def _pack(folder: Path, tmp_path: Path, with_gitignore: bool) -> Path:
    """The zip that a job's submission would upload."""
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=with_gitignore, excludes=get_runtime_env_default_excludes())
    return package
