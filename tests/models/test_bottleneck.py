"""The entropy bottleneck has CompressAI's parameters and values, in one pass and without reading the device."""

from __future__ import annotations

import copy

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from models.bottleneck import Bottleneck
from models.ladder import RateLadder


@pytest.fixture
def pair() -> tuple[EntropyBottleneck, EntropyBottleneck]:
    """CompressAI's, and ours with the same parameters, some of which a training has moved."""
    torch.manual_seed(0)
    original = EntropyBottleneck(6).double()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = copy.deepcopy(original)
    Bottleneck.adopt(ours)
    return original, ours


def outputs(bottleneck: EntropyBottleneck, x: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    quantised, likelihoods = bottleneck(x)
    return quantised, likelihoods


def test_training_has_the_values_and_gradients_of_compressai(pair) -> None:
    x, gradients = torch.randn(3, 6, 4, 2, dtype=torch.float64) * 4, []
    for bottleneck in pair:
        own = x.clone().requires_grad_()
        quantised, likelihoods = outputs(bottleneck.train(), own)
        likelihoods.log().sum().backward()
        gradients.append([quantised.detach(), likelihoods.detach(), own.grad])
        gradients[-1] += [parameter.grad for parameter in bottleneck.parameters() if parameter.grad is not None]
    for ours, of in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, of, rtol=1e-12, atol=1e-14)


def test_evaluation_and_the_coders_tables_are_compressais_to_the_bit(pair) -> None:
    x, found = torch.randn(3, 6, 4, 2, dtype=torch.float64) * 4, []
    for bottleneck in pair:
        bottleneck.eval().update()
        found.append([*outputs(bottleneck, x), bottleneck.quantized_cdf, bottleneck.offset, bottleneck.cdf_length])
    assert all(torch.equal(ours, of) for ours, of in zip(*found, strict=True))


@pytest.mark.parametrize("family", ["hyperprior", "mean-scale", "feds-student"])
@pytest.mark.parametrize("kind", ["variable-rate", "fixed-lambda"])
def test_every_network_of_a_ladder_has_it(family: str, kind) -> None:
    ladder = RateLadder(family=family, N=8, M=20, Z=12, lambdas=(0.01, 0.02), kind=kind)
    assert {type(network.entropy_bottleneck) for network in ladder.networks} == {Bottleneck}
