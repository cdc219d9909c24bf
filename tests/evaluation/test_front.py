"""The Pareto front against the definition, checked on random entries, and entries that have no place."""

import math
import random
from dataclasses import dataclass

import pytest

from orchestrator.evaluation.front import AXES, fronts, hypervolume, pareto_front
from testing.fronts import peeled


@dataclass(frozen=True)
class Entry:
    trial_id: str
    bd_rate_pct: float | None
    macs_per_pixel: float
    params: int = 0


PARAMS = {"params": lambda entry: entry.params}


def ids(entries):
    return [entry.trial_id for entry in entries]


def test_front_is_ordered_by_cost():
    entries = [
        Entry("best", -20.0, 900.0),
        Entry("beaten", 5.0, 500.0),
        Entry("cheap", 30.0, 100.0),
        Entry("mid", 0.0, 400.0),
    ]
    assert ids(pareto_front(entries)) == ["cheap", "mid", "best"]


def test_equal_entries_stay_together():
    assert ids(pareto_front([Entry("a", 1.0, 2.0), Entry("b", 1.0, 2.0), Entry("c", 1.0, 3.0)])) == ["a", "b"]


def test_axes_are_a_choice():
    entries = [Entry("a", 1.0, 5.0, params=3), Entry("b", 2.0, 1.0, params=4)]
    assert ids(pareto_front(entries, {"bd_rate_pct": AXES["bd_rate_pct"], **PARAMS})) == ["a"]
    assert ids(pareto_front(entries, {"macs_per_pixel": AXES["macs_per_pixel"]})) == ["b"]


def test_random_entries_against_the_definition():
    draw = random.Random(0)
    places = [(draw.randint(-9, 9), draw.randint(1, 20)) for _ in range(200)]
    on_front = set(ids(pareto_front([Entry(str(i), *place) for i, place in enumerate(places)])))
    for i, (rate, macs) in enumerate(places):
        beaten = any(
            (other_rate < rate and other_macs <= macs) or (other_rate <= rate and other_macs < macs)
            for other_rate, other_macs in places
        )
        assert (str(i) in on_front) is not beaten


@pytest.mark.parametrize("axes", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_fronts_of_any_number_of_axes_are_those_of_the_definition(seed, axes):
    draw = random.Random(seed)
    points = [tuple(float(draw.randrange(6)) for _ in range(axes)) for _ in range(draw.randrange(1, 60))]
    assert fronts(points) == peeled(points)


@pytest.mark.parametrize("rising", [1, -1])
def test_two_axes_take_n_log_n_steps(rising):
    """One front of all points, and as many fronts as points; by pairs either would take minutes."""
    points = [(float(i), float(rising * i)) for i in range(50_000)]
    assert max(fronts(points)) == (49_999 if rising == 1 else 0)


def test_a_hypervolume_is_what_lies_between_the_points_and_the_reference():
    beaten, beyond = (8.0, 3.0), (1.0, 4.0)
    assert hypervolume([(2.0, 3.0), (6.0, 1.0), beaten, beyond], (10.0, 4.0)) == pytest.approx(8 * 1 + 4 * 2)
    assert hypervolume([(1.0, 1.0, 1.0), (0.0, 1.0, 2.0)], (2.0, 2.0, 3.0)) == pytest.approx(1 * 1 * 2 + 1 * 1 * 1)
    assert hypervolume([beyond], (10.0, 4.0)) == hypervolume([], (10.0, 4.0)) == 0.0


def test_the_front_of_no_entries_is_empty():
    assert pareto_front([]) == []


@pytest.mark.parametrize(("value", "shown"), [(None, "None"), (math.nan, "nan"), (math.inf, "inf"), ("3", "'3'")])
def test_an_entry_with_a_value_that_is_not_finite_is_an_error(value, shown):
    with pytest.raises(ValueError, match=f"^bad has no finite bd_rate_pct: {shown}$"):
        pareto_front([Entry("good", 1.0, 2.0), Entry("bad", value, 2.0)])


def test_fronts_without_axes_are_refused():
    with pytest.raises(ValueError, match=r"^a front needs at least one axis$"):
        pareto_front([Entry("a", 1.0, 2.0)], {})
