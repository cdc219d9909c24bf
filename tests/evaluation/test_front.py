"""The Pareto front against the definition, checked on random entries, and entries that have no place."""

import math
import random

import pytest

from orchestrator.evaluation.front import pareto_front


def entry(trial_id, bd_rate_pct, macs_per_pixel, **more):
    return {"trial_id": trial_id, "bd_rate_pct": bd_rate_pct, "macs_per_pixel": macs_per_pixel, **more}


def ids(entries):
    return [each["trial_id"] for each in entries]


def test_front_is_ordered_by_cost():
    entries = [
        entry("best", -20.0, 900.0),
        entry("beaten", 5.0, 500.0),
        entry("cheap", 30.0, 100.0),
        entry("mid", 0.0, 400.0),
    ]
    assert ids(pareto_front(entries)) == ["cheap", "mid", "best"]


def test_equal_entries_stay_together():
    assert ids(pareto_front([entry("a", 1.0, 2.0), entry("b", 1.0, 2.0), entry("c", 1.0, 3.0)])) == ["a", "b"]


def test_axes_are_a_choice():
    entries = [entry("a", 1.0, 5.0, params=3), entry("b", 2.0, 1.0, params=4)]
    assert ids(pareto_front(entries, axes=("bd_rate_pct", "params"))) == ["a"]
    assert ids(pareto_front(entries, axes=("macs_per_pixel",))) == ["b"]


def test_random_entries_against_the_definition():
    draw = random.Random(0)
    entries = [entry(str(i), draw.randint(-9, 9), draw.randint(1, 20)) for i in range(200)]
    on_front = set(ids(pareto_front(entries)))
    for one in entries:
        beaten = any(
            (other["bd_rate_pct"] < one["bd_rate_pct"] and other["macs_per_pixel"] <= one["macs_per_pixel"])
            or (other["bd_rate_pct"] <= one["bd_rate_pct"] and other["macs_per_pixel"] < one["macs_per_pixel"])
            for other in entries
        )
        assert (one["trial_id"] in on_front) is not beaten


def test_nothing_has_an_empty_front():
    assert pareto_front([]) == []


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3"])
def test_an_entry_without_a_place_is_an_error(value):
    with pytest.raises(ValueError, match="bad has no finite bd_rate_pct"):
        pareto_front([entry("good", 1.0, 2.0), entry("bad", value, 2.0)])


def test_no_axes():
    with pytest.raises(ValueError, match="axis"):
        pareto_front([entry("a", 1.0, 2.0)], axes=())
