"""The same global batch gives the same losses, however many ranks share it and whatever ZeRO parts among them.

Two ranks sum in another order than one, and ZeRO clips by another formula than plain data parallelism, so weights
differ in their last bits; measured, losses then differ by 1e-7 to 3e-7. Training itself lets that grow: at a learning
rate of 1e-4 it doubles about every third step, between two ranks and one as between two ZeRO stages on one rank; at
1e-5 it does not grow. And in stage 2 of a variable-rate network, which rounds where stage 1 has noise, an element of
y or z may fall to either side: that step, and all after it, differ by 1e-4 and more. At which step that first happens
is the processor's; what is rounded there is still the same to 1e-4.

`pytest -rP tests/distill/test_equal.py` shows the largest differences.
"""

import numpy as np
import pytest

from tests.distill.ranks import BATCH, engine, in_worlds, train

pytestmark = pytest.mark.slow  # trains in processes of ranks

LEARNING_RATE = 1e-5
STEPS = {1: 50, 2: 20}  # by the stage of a variable-rate network's training
ZERO_STAGES = (0, 1, 2, 3)


def losses(rank, world, steps):
    """By (stage, ZeRO stage): each step's terms, and of this rank's crops y and z in steps, before they are rounded."""
    return {
        (stage, zero_stage): run(rank, world, stage, zero_stage, count)
        for stage, count in steps.items()
        for zero_stage in ZERO_STAGES
    }


def run(rank, world, stage, zero_stage, steps):
    trained = engine(world, zero_stage=zero_stage)
    network, caught = trained.ladder.networks[0], {}

    def of_z(bottleneck, inputs):  # before its forward: ZeRO 3 has its medians whole only there
        caught["z"] = (inputs[0] - bottleneck.quantiles[:, 0, 1].view(1, -1, 1, 1)).detach()

    def of_y(_module, _inputs, output):
        caught["y"] = output.detach().abs()

    handles = [
        network.entropy_bottleneck.register_forward_pre_hook(of_z),
        network.g_a.register_forward_hook(of_y),
    ]
    rows = []
    for step in range(steps):
        (terms,) = train(trained, range(step, step + 1), rank, world, stage=stage, learning_rate=LEARNING_RATE)
        y = caught["y"] * trained.ladder.gains[step % len(trained.ladder.gains)]
        latents = [np.concatenate((a.ravel(), b.ravel())) for a, b in zip(y.numpy(), caught["z"].numpy(), strict=True)]
        rows.append((terms, latents))
    for handle in handles:
        handle.remove()
    trained.close()
    return rows


@pytest.fixture(scope="module")
def runs():
    """By (ranks, stage, ZeRO stage): each step's terms, and the latents [BATCH, elements] of its crops."""
    steps_of = {}
    for world, of_ranks in in_worlds((1, 2), losses, STEPS).items():
        for stage, zero_stage in of_ranks[0]:
            steps = zip(*(of_rank[stage, zero_stage] for of_rank in of_ranks), strict=True)
            steps_of[world, stage, zero_stage] = [
                (ranks[0][0], np.stack([ranks[index % world][1][index // world] for index in range(BATCH)]))
                for ranks in steps
            ]
    return steps_of


def differences(run, expected):
    """The relative difference of each step's worst term."""
    return [max(abs(row[term] / of[term] - 1) for term in of) for (row, _), (of, _) in zip(run, expected, strict=True)]


SETTINGS = [(world, zero_stage) for world in (1, 2) for zero_stage in ZERO_STAGES][1:]


@pytest.mark.parametrize(("world", "zero_stage"), SETTINGS)
def test_losses_are_those_of_one_rank_without_zero(runs, world, zero_stage):
    expected = runs[1, 1, 0]
    assert set(expected[0][0]) == {"bpp", "distortion", "latent", "reconstruction", "loss"}
    assert expected[34][0]["loss"] < expected[4][0]["loss"]  # it learns: the same crops at the same rate point
    largest = max(differences(runs[world, 1, zero_stage], expected))
    print(f"{world} ranks, ZeRO {zero_stage}: {largest:.2e} over {STEPS[1]} steps")
    assert largest < 1e-5


@pytest.mark.parametrize(("world", "zero_stage"), SETTINGS)
def test_losses_are_the_same_until_an_element_is_rounded_to_the_other_side(runs, world, zero_stage):
    run, expected = runs[world, 2, zero_stage], runs[1, 2, 0]
    same = [np.array_equal(own.round(), other.round()) for (_, own), (_, other) in zip(run, expected, strict=True)]
    until = same.index(False) if False in same else len(same)
    steps = zip(run[: until + 1], expected, strict=False)
    apart = max(float(np.abs(own - other).max()) for (_, own), (_, other) in steps)
    largest = max(differences(run, expected)[:until], default=0.0)
    print(f"{world} ranks, ZeRO {zero_stage}: {largest:.2e} over {until} steps, latents {apart:.1e}")
    assert largest < 1e-5 and apart < 1e-4
