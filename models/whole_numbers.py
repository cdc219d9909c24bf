"""A ladder's entropy model in whole numbers: what encoder and decoder compute alike on every machine.

Weights are rounded to the steps of `lic_codec.whole`; what that costs in bits is in benchmarks/results/codec.json.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lic_codec.entropy import EntropyModel, EntropyNetwork, Offsets
from lic_codec.tables import Table
from lic_codec.whole import LEAK_BITS, VALUE_BITS, WEIGHT_BITS, Layer
from models.families import FAMILIES
from models.grouped_hyperprior import GroupedHyperprior
from models.ladder import RateLadder

Z_FREQUENCY_BITS = 16  # of the sum of a channel's frequencies, about


def entropy_model(ladder: RateLadder) -> EntropyModel:
    """The entropy model of a ladder, on the CPU."""
    return EntropyModel(
        gains=ladder.gains,
        variable=ladder.kind == "variable-rate",
        networks=tuple(_network(network) for network in ladder.networks),
        least_side=FAMILIES[ladder.family].least_side,
    )


def _network(network: Any) -> EntropyNetwork:
    grouped = isinstance(network, GroupedHyperprior)
    h_s = _layers(network.h_s)
    outputs = h_s[-1].weight.shape[3]
    M = sum(network.channel_groups.sizes) if grouped else network.M
    offsets = getattr(network, "QuantABCD", None)
    medians = _rounded(network.entropy_bottleneck.quantiles[:, 0, 1], VALUE_BITS)
    return EntropyNetwork(
        medians=medians,
        z_tables=_z_tables(network.entropy_bottleneck, medians),
        h_s=h_s,
        means=outputs == 2 * M,
        groups=network.channel_groups.sizes if grouped else (M,),
        group_networks=tuple(_layers(one) for one in network.channel_groups.networks) if grouped else (),
        gain_before_z=grouped,
        offsets=None if offsets is None else _offsets(offsets),
    )


def _layers(modules: Iterable[nn.Module]) -> tuple[Layer, ...]:
    """Convolutions of a sequence, each with the activation that follows it."""
    found: list[Layer] = []
    waiting: nn.Module | None = None
    for module in (*modules, nn.Identity()):
        if waiting is not None:
            found.append(_layer(waiting, module))
            waiting = None
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            waiting = module
        elif not isinstance(module, nn.ReLU | nn.LeakyReLU | nn.Identity):
            raise TypeError(f"{type(module).__name__} has no form in whole numbers: {module}")
    return tuple(found)


def _layer(convolution: nn.Module, activation: nn.Module) -> Layer:
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d) and convolution.bias is not None
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    side = convolution.kernel_size[0]
    shape = (convolution.stride[0], convolution.padding[0], side)
    if shape != ((2, 2, 5) if transposed else (1, side // 2, side)):
        raise TypeError(f"no form in whole numbers: {convolution}")
    slope = 1.0
    if isinstance(activation, nn.ReLU):
        slope = 0.0
    elif isinstance(activation, nn.LeakyReLU):
        slope = activation.negative_slope
    return Layer(
        weight=_rounded(convolution.weight, WEIGHT_BITS)
        .transpose((2, 3, 0, 1) if transposed else (2, 3, 1, 0))
        .astype(np.float32),
        bias=_rounded(convolution.bias, WEIGHT_BITS + VALUE_BITS),
        transposed=transposed,
        slope=round(slope * 2**LEAK_BITS),
    )


def _z_tables(bottleneck: Any, medians: Any) -> tuple[Table, ...]:
    """Frequencies of z's rounded distance from its median, of each channel, in whole numbers.

    Computed in float64, whose differences between machines are far too small to be seen after rounding; a table that
    did differ would give the entropy model another id.
    """
    with torch.no_grad():
        quantiles = bottleneck.quantiles[:, 0].double()
        centre = torch.from_numpy(medians * 2.0**-VALUE_BITS)
        below = (centre - quantiles[:, 0]).ceil().clamp(min=1).int()
        above = (quantiles[:, 2] - centre).ceil().clamp(min=1).int()
        reach = int(max(below.max(), above.max()))
        bounds = centre[:, None, None] + torch.arange(-reach, reach + 2).double() - 0.5
        logits = copy.deepcopy(bottleneck).double()._logits_cumulative(bounds.clone(), stop_gradient=True)[:, 0]
        cumulative, upper = logits.sigmoid(), (-logits).sigmoid()  # 1 - cumulative, exact where that is small
    shares = torch.where(bounds[:, 0, :-1] > centre[:, None], upper[:, :-1] - upper[:, 1:], cumulative.diff(dim=1))
    tables = []
    for channel, (low, high) in enumerate(zip(below.tolist(), above.tolist(), strict=True)):
        inside = shares[channel, reach - low : reach + high + 1]
        escape = cumulative[channel, reach - low] + upper[channel, reach + high + 1]
        counts = torch.cat((inside, escape[None])) * 2**Z_FREQUENCY_BITS
        tables.append(Table(lowest=-low, frequencies=counts.round().clamp(min=1).numpy().astype(np.uint32)))
    return tuple(tables)


def _offsets(network: nn.Sequential) -> Offsets:
    linear = [module for module in network if isinstance(module, nn.Linear)]
    return Offsets(
        weights=tuple(module.weight.detach().float().numpy().T.copy() for module in linear),
        biases=tuple(module.bias.detach().float().numpy().copy() for module in linear),
    )


def _rounded(values: Tensor, bits: int) -> Any:
    """In steps of 2^-bits: float64, whole numbers."""
    return (values.detach().double() * 2.0**bits).round().numpy()
