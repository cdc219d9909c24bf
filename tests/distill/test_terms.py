"""The table of loss terms: its rows, functions, tests and documentation agree, and docs/extending.md adds a term."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from orchestrator.distill.losses import distillation_terms, function_of
from orchestrator.distill.targets import Pair
from orchestrator.spec.loss import Loss, LossWeights, Method, TeacherRatePoints
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.terms import ROWS, TERMS, by_name, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TERMS)
def test_a_terms_function_takes_what_its_row_says(name: str) -> None:
    _student, _teacher, *others = inspect.signature(function_of(name)).parameters.values()
    assert {parameter.name for parameter in others if parameter.default is parameter.empty} <= set(TERMS[name].takes)
    assert set(TERMS[name].takes) <= {parameter.name for parameter in others}


def test_the_tests_that_the_rows_name_exist() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [test for term in ROWS for test in term.tests if f"def {test}(" not in sources] == []


def test_the_table_of_the_documentation_is_that_of_the_rows() -> None:
    """If not: put in what `python -m orchestrator.spec.terms` prints."""
    assert table() in (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")


def test_every_section_with_weights_has_a_field_for_each_term() -> None:
    weights = ["rate_distortion", *TERMS]
    assert list(LossWeights.model_fields) == weights and list(TeacherRatePoints.model_fields) == list(TERMS)
    assert list(Loss.model_fields) == list(LossSpace.model_fields) == [*Method.model_fields, *weights]


def test_a_name_is_of_one_term() -> None:
    with pytest.raises(ValueError, match="two loss terms are named latent"):
        by_name([*ROWS, ROWS[0]])


def test_an_unknown_term_is_refused() -> None:
    with pytest.raises(ValueError, match="'latnt' is not a loss term; these are: latent, latent_kl"):
        Pair(term="latnt", student="y", teacher="y")


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ((), "nothing to compare for channel_entropy"),
        ((Pair(term="channel_entropy", student="y", teacher="y"),), "channel_entropy needs channel_weights"),
    ],
)
def test_a_weighted_term_that_cannot_be_computed_is_an_error(pairs: tuple[Pair, ...], reason: str) -> None:
    y, x = torch.rand(2, 4, 1, 1), torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=reason):
        distillation_terms(
            {"x_hat": x, "y": y, "likelihoods": {"y": y}},
            x,
            {"y": y},
            lmbda=0.013,
            gain=1.0,
            teacher_gains={"channel_entropy": 1.0},
            weights=LossWeights(channel_entropy=0.1),
            pairs=pairs,
        )


def test_the_term_that_the_documentation_adds_trains(tmp_path: Path) -> None:
    """docs/extending.md is followed in a copy of the packages; new_term.py then checks what follows from the row."""
    section = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").partition("## A loss term")[2]
    section = section.partition("\n## ")[0]
    files = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL))
    (row,) = re.findall(r"```python\n(Term\(.*?)\n```", section, flags=re.MULTILINE | re.DOTALL)
    (losses,) = re.findall(r"```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)

    for package in ("orchestrator", "models"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    terms = tmp_path / "orchestrator" / "spec" / "terms.py"
    before, end, after = terms.read_text(encoding="utf-8").partition("\n)\n\n\ndef by_name")
    terms.write_text(f"{before}\n{textwrap.indent(row, ' ' * 4)},{end}{after}", encoding="utf-8")
    spec = yaml.safe_load((ROOT / "jobs" / "specs" / "quickstart.yaml").read_text(encoding="utf-8"))
    spec |= yaml.safe_load(losses) | {"trials": 1}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")

    tests = [path for path in files if path.startswith("tests/")]
    assert tests and "orchestrator/distill/latent_l1.py" in files
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    own_test = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    checks = [str(ROOT / "tests" / "distill" / "new_term.py")]
    for command in (own_test, checks):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
