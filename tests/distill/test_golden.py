"""A change of the mathematics shows in the training curves: 200 steps of every preset, and what no preset has."""

import json

import pytest

from tests.distill.golden import FILE, RUNS, TOLERANCE, curves, deviations

pytestmark = pytest.mark.slow  # trains for minutes


@pytest.fixture(scope="module")
def trained():
    return curves()


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_is_the_one_that_was_committed(trained, name):
    committed = json.loads(FILE.read_text())[name]
    assert len(trained[name]) == len(committed) == len(RUNS[name].ends) + RUNS[name].validates
    largest = max(deviations(trained[name], committed))
    print(f"{name}: at most {largest[0]:.1e}")
    assert largest[0] < TOLERANCE, largest


def test_every_run_has_a_curve_of_its_own(trained):
    ends = {name: trained[name][len(RUNS[name].ends) - 1]["loss"] for name in RUNS}
    assert len({f"{loss:.6g}" for loss in ends.values()}) == len(RUNS)
