"""The table of loss terms: its rows, functions, tests and documentation agree."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

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
    """If this fails, replace the table by what `python -m orchestrator.spec.terms` prints."""
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
