"""Least squares gives a convolution back from its outputs, ordinary and transposed, and what torch itself computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from orchestrator.distill.refit.least_squares import Convolution, NormalEquations, fits, set_weights, weight_matrix

LAYERS: dict[str, Convolution] = {
    "conv 5x5, stride 2": nn.Conv2d(3, 4, 5, stride=2, padding=2),
    "conv 3x3, stride 1": nn.Conv2d(3, 4, 3, padding=1),
    "conv 2x2, stride 2": nn.Conv2d(3, 4, 2, stride=2),
    "transposed 5x5, stride 2": nn.ConvTranspose2d(3, 4, 5, stride=2, padding=2, output_padding=1),
    "transposed 2x2, stride 2": nn.ConvTranspose2d(3, 4, 2, stride=2),
}


def solved(layer: Convolution, wanted: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    equations = NormalEquations(layer, 1000.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for x in inputs:
            equations.add(x, wanted(x))
        return equations.solve(1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_the_weights_that_made_the_outputs_are_found(name: str) -> None:
    """Also that a transposed kernel is not flipped: its weights come back as torch reads them."""
    wanted = LAYERS[name]
    torch.manual_seed(1)
    layer = copy.deepcopy(wanted)
    layer.reset_parameters()
    inputs = [torch.randn(2, 3, 12, 16) for _ in range(3)]
    assert fits(layer)
    found = solved(layer, wanted, inputs)
    torch.testing.assert_close(found.float(), weight_matrix(wanted), rtol=0, atol=1e-4)
    set_weights(layer, found.float())
    torch.testing.assert_close(layer(inputs[0]), wanted(inputs[0]), rtol=0, atol=1e-4)


def test_a_flipped_kernel_is_not_the_answer() -> None:
    wanted = LAYERS["transposed 5x5, stride 2"]
    flipped = weight_matrix(wanted)[:-1].unflatten(0, (3, 25)).flip(1).flatten(0, 1)
    assert (flipped - weight_matrix(wanted)[:-1]).abs().max() > 0.01


def test_a_matrix_of_weights_and_its_layer_are_inverse() -> None:
    for layer in LAYERS.values():
        before = layer.weight.detach().clone()
        set_weights(layer, weight_matrix(layer))
        assert torch.equal(layer.weight, before)


def test_weights_of_an_input_that_is_always_zero_stay() -> None:
    """And weights that already give the outputs stay to the bit."""
    layer, wanted = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    inputs = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    for x in inputs:
        x[:, 1] = 0
    before = weight_matrix(layer)
    found = solved(layer, wanted, inputs).float()
    torch.testing.assert_close(found[9:18], before[9:18], rtol=0, atol=1e-6)
    assert (found[:9] - before[:9]).abs().max() > 0.01
    assert torch.equal(solved(layer, layer, inputs).float(), before)


def test_the_answer_is_the_one_of_least_squares() -> None:
    """Against numpy's, for outputs that no weights give exactly."""
    torch.manual_seed(2)
    layer = nn.Conv2d(2, 1, 3)
    x, y = torch.randn(4, 2, 10, 10), torch.randn(4, 1, 8, 8)
    equations = NormalEquations(layer, 1000.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        equations.add(x, y)
        found = equations.solve(0.0)
    rows = nn.functional.unfold(x, 3).transpose(1, 2).flatten(0, 1)
    rows = torch.cat((rows, torch.ones(len(rows), 1)), dim=1).double()
    best = torch.linalg.lstsq(rows, y.permute(0, 2, 3, 1).flatten(0, 2).double()).solution
    torch.testing.assert_close(found, best, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, bias=False),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, (3, 1)),
        nn.ConvTranspose2d(3, 4, 5, stride=2, padding=2),  # gives 2n - 1
        nn.Linear(3, 4),
    ],
)
def test_layers_that_are_not_known_are_left_alone(layer: nn.Module) -> None:
    assert not fits(layer)
