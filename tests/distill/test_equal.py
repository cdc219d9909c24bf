"""The same global batch gives the same losses, however many ranks share it and whatever ZeRO parts among them.

`pytest -rP tests/distill/test_equal.py` shows the largest differences.
"""

import pytest

from tests.distill.ranks import engine, in_ranks, train

STEPS = 50
STAGES = (0, 1, 2, 3)
Rows = list[dict[str, float]]


def losses(rank: int, world: int, steps: int) -> list[Rows]:
    """Of each ZeRO stage."""
    runs = []
    for zero_stage in STAGES:
        trained = engine(world, zero_stage=zero_stage)
        runs.append(train(trained, range(steps), rank, world))
        trained.close()
    return runs


def largest_difference(rows: Rows, expected: Rows) -> float:
    """Relative, over all steps and terms."""
    return max(abs(row[term] / of[term] - 1) for row, of in zip(rows, expected, strict=True) for term in of)


@pytest.fixture(scope="module")
def runs():
    return {(world, stage): rows for world in (1, 2) for stage, rows in enumerate(in_ranks(world, losses, STEPS)[0])}


@pytest.mark.parametrize(("world", "zero_stage"), [(world, stage) for world in (1, 2) for stage in STAGES][1:])
def test_losses_are_those_of_one_rank_without_zero(runs, world, zero_stage):
    expected = runs[1, 0]
    assert set(expected[0]) == {"bpp", "distortion", "latent", "reconstruction", "loss"}
    assert expected[-1]["loss"] < expected[4]["loss"]  # it learns; both steps are of the highest rate point
    difference = largest_difference(runs[world, zero_stage], expected)
    print(f"{world} ranks, ZeRO {zero_stage}: {difference:.2e} over {STEPS} steps")
    assert difference < 1e-5
