"""The same global batch gives the same losses, however many ranks share it and whatever ZeRO parts among them.

`pytest -rP tests/distill/test_equal.py` shows the largest differences.
"""

from functools import cache

import pytest

from tests.distill.ranks import engine, in_ranks, train

STEPS = 50
SETTINGS = [(world, zero_stage) for world in (1, 2) for zero_stage in (0, 1, 2, 3)]


def losses(rank, world, steps, zero_stage):
    trained = engine(world, zero_stage=zero_stage)
    rows = train(trained, range(steps), rank, world)
    trained.close()
    return rows


@cache
def measured(world, zero_stage):
    return in_ranks(world, losses, STEPS, zero_stage)[0]


def largest_difference(rows, expected):
    """Relative, over all steps and terms."""
    return max(abs(row[term] / of[term] - 1) for row, of in zip(rows, expected, strict=True) for term in of)


@pytest.mark.parametrize(("world", "zero_stage"), SETTINGS[1:])
def test_losses_are_those_of_one_rank_without_zero(world, zero_stage):
    expected = measured(1, 0)
    assert set(expected[0]) == {"bpp", "distortion", "latent", "reconstruction", "loss"}
    assert expected[-1]["loss"] < expected[4]["loss"]  # it learns; both steps are of the highest rate point
    difference = largest_difference(measured(world, zero_stage), expected)
    print(f"{world} ranks, ZeRO {zero_stage}: {difference:.2e} over {STEPS} steps")
    assert difference < 1e-5
