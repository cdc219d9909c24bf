"""The loss term of docs/extending.md works as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from testing.examples import examples

ROOT = Path(__file__).resolve().parents[2]
MODULE, TEST = "orchestrator/distill/latent_l1.py", "tests/distill/test_latent_l1.py"


@pytest.mark.slow
def test_the_documented_term_trains(tmp_path: Path) -> None:
    """The page is followed in a copy of the packages; new_term.py then checks what follows from the row."""
    code = examples("A loss term")
    for package in ("orchestrator", "models", "lic_codec"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for path in (MODULE, TEST):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code[path], encoding="utf-8")
    terms = tmp_path / "orchestrator" / "spec" / "terms.py"
    rows, end, rest = terms.read_text(encoding="utf-8").partition("\n)\n\n\ndef by_name")
    row = textwrap.indent(code["orchestrator/spec/terms.py, at the end of ROWS"].rstrip(), " " * 4)
    terms.write_text(f"{rows}\n{row},{end}{rest}", encoding="utf-8")
    spec = yaml.safe_load((ROOT / "jobs" / "specs" / "quickstart.yaml").read_text(encoding="utf-8"))
    spec |= yaml.safe_load(code["your specification"]) | {"trials": 1}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")

    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    own_test = ["-m", "pytest", "-q", "-p", "no:cacheprovider", TEST]
    checks = [str(ROOT / "tests" / "distill" / "new_term.py")]
    for command in (own_test, checks):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
