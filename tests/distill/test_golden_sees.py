"""The golden curves see changes of the mathematics that are as small as 1 % of one factor.

`pytest -rP tests/distill/test_golden_sees.py` shows by how much each of them leaves the committed curve.
"""

import json

import pytest

from tests.distill.changes import CHANGES
from tests.distill.golden import FILE, RUNS, TOLERANCE, chain, deviations
from tests.distill.ranks import in_ranks

pytestmark = [pytest.mark.slow, pytest.mark.long]  # trains again for each change


def largest_deviations(rank, world):
    """Change -> the largest deviation of its curve from the committed one."""
    committed, largest = json.loads(FILE.read_text()), {}
    with chain() as trains:
        for name, change in CHANGES.items():
            with change.applied():
                curve = trains.curve(change.other(RUNS[change.run]), change.steps)
            largest[name] = max(deviations(curve, committed[change.run]))
    return largest


@pytest.fixture(scope="module")
def seen():
    (largest,) = in_ranks(1, largest_deviations)
    return largest


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "nothing"])
def test_a_change_of_the_mathematics_is_seen(seen, name):
    print(f"{name}: {seen[name][0]:.1e} in {seen[name][2]}")
    assert seen[name][0] > 10 * TOLERANCE


def test_after_all_changes_the_curve_is_the_committed_one(seen):
    assert seen["nothing"][0] < TOLERANCE
