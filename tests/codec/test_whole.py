"""Whole-number layers against torch's, in float64 and rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lic_codec import whole
from lic_codec.whole import LEAK_BITS, VALUE_BITS, WEIGHT_BITS, Layer, Whole


def of_torch(x: Whole, layer: Layer) -> Any:
    """The same sums by torch, then rounded as the definition has it."""
    weight, bias = torch.from_numpy(layer.weight.astype(np.float64)), torch.from_numpy(layer.bias)
    inputs = torch.from_numpy(x.astype(np.float64)).permute(2, 0, 1)[None]
    if layer.transposed:
        sums = nn.functional.conv_transpose2d(
            inputs, weight.permute(2, 3, 0, 1), bias, stride=2, padding=2, output_padding=1
        )
    else:
        sums = nn.functional.conv2d(inputs, weight.permute(3, 2, 0, 1), bias, padding=layer.weight.shape[0] // 2)
    values = (sums / 2**WEIGHT_BITS + 0.5).floor()
    leaked = (values * layer.slope / 2**LEAK_BITS + 0.5).floor()
    return torch.where(values < 0, leaked, values)[0].permute(1, 2, 0).numpy()


def layer(side: int, transposed: bool, slope: float, channels: tuple[int, int] = (5, 7)) -> Layer:
    rng = np.random.default_rng(side)
    return Layer(
        weight=rng.integers(-3000, 3000, (side, side, *channels)).astype(np.float32),
        bias=rng.integers(-90000, 90000, channels[1]).astype(np.float64),
        transposed=transposed,
        slope=round(slope * 2**LEAK_BITS),
    )


@pytest.mark.parametrize(("side", "transposed"), [(1, False), (3, False), (5, False), (5, True)])
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("block", [3, 2048])
def test_layers_are_torchs(side, transposed, slope, block, monkeypatch):
    monkeypatch.setattr(whole, "BLOCK", block)
    x = np.random.default_rng(0).integers(-4000, 4000, (6, 9, 5)).astype(np.float32)
    made = layer(side, transposed, slope)
    found = made(x)
    assert found.shape == ((12, 18, 7) if transposed else (6, 9, 7))
    assert np.array_equal(found, of_torch(x, made))
    assert (found < 0).any() == (slope > 0)


def test_the_order_of_sums_does_not_matter():
    x = np.random.default_rng(0).integers(-(2**20), 2**20, (4, 4, 64)).astype(np.float32)
    made = layer(3, False, 1.0, (64, 8))
    order = np.random.default_rng(1).permutation(64)
    turned = Layer(weight=made.weight[:, :, order], bias=made.bias, transposed=False, slope=made.slope)
    assert np.array_equal(made(x), turned(x[:, :, order]))


def test_values_are_limited():
    found = layer(1, False, 1.0)(np.full((1, 1, 5), whole.LARGEST, np.float32))
    assert np.abs(found).max() == whole.LARGEST


def test_weights_whose_sums_would_not_be_exact_are_refused():
    with pytest.raises(ValueError, match="would not be exact"):
        Layer(weight=np.full((3, 3, 64, 1), 2.0**23, np.float32), bias=np.zeros(1), transposed=False, slope=0)


def test_steps_are_as_documented():
    assert (WEIGHT_BITS, VALUE_BITS) == (12, 6)
