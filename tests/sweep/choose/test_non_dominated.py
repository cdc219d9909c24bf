from __future__ import annotations

import random

import pytest

from orchestrator.evaluation.front import fronts
from orchestrator.sweep.choose.non_dominated import place_of_last
from testing.fronts import peeled


@pytest.mark.parametrize("seed", range(40))
def test_fronts_are_those_of_the_definition(seed: int) -> None:
    source = random.Random(seed)
    points = [(float(source.randrange(12)), float(source.randrange(1, 6))) for _ in range(source.randrange(1, 40))]
    assert fronts(points) == peeled(points)


def test_whole_fronts_come_first() -> None:
    assert place_of_last([(1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (2.0, 2.0)]) == 3
    assert place_of_last([(5.0, 5.0), (4.0, 4.0), (3.0, 3.0)]) == 1


def test_within_a_front_the_best_value_then_the_farthest_is_ahead() -> None:
    front = [(0.0, 10.0), (1.0, 9.0), (8.5, 1.5), (10.0, 0.0), (5.0, 5.0)]
    assert [place_of_last([*(p for p in front if p != last), last]) for last in front] == [1, 5, 4, 2, 3]


def test_axes_count_alike_whatever_their_units() -> None:
    near, middle, far = (0.0, 1.0), (400.0, 0.5), (1000.0, 0.0)
    assert place_of_last([near, far, (100.0, 0.9), middle]) == 3
    assert place_of_last([near, far, middle, (100.0, 0.9)]) == 4


def test_the_earlier_of_equal_points_is_ahead() -> None:
    assert place_of_last([(1.0, 1.0), (1.0, 1.0)]) == 2
    assert place_of_last([(1.0, 1.0), (2.0, 0.5), (1.0, 1.0)]) == 3
