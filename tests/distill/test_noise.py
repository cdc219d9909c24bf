"""Quantisation noise is of the crop and the step alone, uniform and new at every call."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import nn

from orchestrator.distill.noise import CropNoise
from tests.distill.ranks import crops, student


@pytest.fixture
def network():
    return nn.ModuleDict({"z": EntropyBottleneck(5), "y": GaussianConditional(None)}).train()


def drawn(network, noise, chosen, step=7, *, size=4):
    """What the entropy models add to [B, 5, size, size] in one forward: of z, of y, and of y's second call."""
    noise.begin(chosen, step)
    zeros, scales = torch.zeros(len(chosen), 5, size, size), torch.ones(len(chosen), 5, size, size)
    with torch.no_grad():
        return torch.stack([network["z"](zeros)[0], network["y"](zeros, scales)[0], network["y"](zeros, scales)[0]])


def test_noise_follows_the_crop_to_any_place_in_a_batch(network):
    noise = CropNoise(network, seed=1)
    whole = drawn(network, noise, [11, 4, 9, 4])
    torch.manual_seed(99)  # the global generator has no part in it
    first, second = drawn(network, noise, [11, 9]), drawn(network, noise, [4, 4])
    assert torch.equal(first, whole[:, [0, 2]]) and torch.equal(second, whole[:, [1, 3]])
    assert torch.equal(whole[:, 1], whole[:, 3])  # a crop that comes twice


def test_noise_differs_between_crops_steps_seeds_and_calls(network):
    noise = CropNoise(network, seed=1)
    draws = [*drawn(network, noise, [3]), *drawn(network, noise, [4]), *drawn(network, noise, [3], step=8)]
    draws += drawn(network, CropNoise(network, seed=2), [3])
    draws += drawn(network, CropNoise(network, seed=1 + 2**32), [3])  # torch's generator would repeat seed 1
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_a_crops_noise_is_one_stream_of_numpys_generator(network):
    """As it always was: a run from an older version's weights and steps has the same noise."""
    values = drawn(network, CropNoise(network, seed=1), [11, 4])
    for place, crop in enumerate((11, 4)):
        generator = np.random.default_rng([1, 7, crop])
        for draw in values:
            expected = torch.from_numpy(generator.random((5, 4, 4), dtype=np.float32) - 0.5)
            assert torch.equal(draw[place], expected)


def test_noise_that_another_thread_has_made_ahead_is_the_same(network):
    noise = CropNoise(network, seed=1)
    expected = drawn(network, noise, [11, 4])
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(noise.ahead, [11, 4], 7).result()
    assert coming.shape == (2, 3 * 5 * 4 * 4)  # all that a forward takes
    noise.begin([11, 4], 7, coming)
    zeros, scales = torch.zeros(2, 5, 4, 4), torch.ones(2, 5, 4, 4)
    with torch.no_grad():
        assert torch.equal(network["z"](zeros)[0], expected[0])
        assert torch.equal(network["y"](zeros, scales)[0], expected[1])
    assert noise._drawn is coming  # none was made again


def test_noise_is_uniform_between_minus_and_plus_a_half(network):
    noise = CropNoise(network, seed=1)
    values = drawn(network, noise, range(40), size=32)
    for noise_ in values:  # 204,800 values: 5 standard errors
        assert noise_.abs().max() <= 0.5
        assert noise_.mean().abs() < 5 * 12**-0.5 / 204_800**0.5
        assert noise_.square().mean().item() == pytest.approx(1 / 12, rel=0.01)


def test_evaluation_rounds_as_before():
    ladder, x = student(16).eval(), crops()[:2]
    with torch.inference_mode():
        expected = ladder(x, 2)
        CropNoise(ladder, seed=1)
        assert torch.equal(ladder(x, 2)["x_hat"], expected["x_hat"])
        assert torch.equal(ladder(x, 2)["likelihoods"]["z"], expected["likelihoods"]["z"])


def test_a_batch_of_other_crops_than_announced_is_refused(network):
    noise = CropNoise(network, seed=1)
    noise.begin([1, 2, 3], 0)
    with pytest.raises(ValueError, match=r"\(4, 5, 2, 2\) is not of the 3 crops"):
        network["y"](torch.zeros(4, 5, 2, 2), torch.ones(4, 5, 2, 2))
    with pytest.raises(ValueError, match="is not of the 3 crops"):
        network["z"](torch.zeros(4, 5, 2, 2))
