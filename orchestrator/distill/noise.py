"""Quantisation noise that belongs to a crop: the same at any number of ranks, and after a restart.

In training CompressAI replaces rounding by uniform noise, drawn from the process's global generator. What a crop
gets would then depend on its rank and on all draws before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel
from torch import Tensor, nn


def noise_of(seed: int, step: int, crops: Sequence[int], count: int) -> Tensor:
    """[crops, count] float32 on the CPU, uniform in -0.5..0.5: a row is a function of (seed, step, crop), and a shorter
    row is the beginning of a longer one. Any thread may call it; it holds the interpreter for the seeds alone.
    """
    values = np.empty((len(crops), count), dtype=np.float32)
    for crop, row in zip(crops, values, strict=True):
        # NumPy's, for torch's CPU generator keeps 32 bits of a seed.
        np.random.default_rng([seed, step, crop]).random(out=row, dtype=np.float32)
    values -= 0.5
    return torch.from_numpy(values)


class CropNoise:
    """Replaces the noise of all entropy models inside a network by a function of (seed, step, crop).

    Within a step the entropy models draw one after the other, and so does one that is called for groups of channels:
    what a call draws depends on its place in the network's forward, which is the same on all ranks. A crop that is in
    a batch twice has the same noise twice, wherever the two are. Rounding is left as it is.

    All of a forward's noise is drawn and brought to the device at its first call, as much as the one before took. Or
    another thread has made it ahead: `ahead` for this forward's crops and step, whose result `begin` is given.

    Args:
        network: its entropy models' `quantize` is overridden, of these instances alone.
        seed: 0 or more.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        self._seed, self._step = seed, 0
        self._crops: Sequence[int] = ()
        self._drawn: Tensor | None = None  # [crops, count], on the device of what is quantised
        self._taken = self._usual = 0  # values a crop: so far in this forward, and in the one before
        for model in network.modules():
            if isinstance(model, EntropyModel):
                model.quantize = partial(self._quantize, model)

    def ahead(self, crops: Sequence[int], step: int) -> Tensor:
        """The noise of a forward to come, on the CPU, as much as the last one took; any thread may call it."""
        return noise_of(self._seed, step, crops, max(self._usual, self._taken))

    def begin(self, crops: Sequence[int], step: int, noise: Tensor | None = None) -> None:
        """Before every forward in training.

        Args:
            crops: ids of its crops, in their order.
            step: the training's.
            noise: what `ahead` gave for both, also on the device; None: it is made when it is needed.
        """
        self._usual, self._taken = self._taken or self._usual, 0
        self._crops, self._step, self._drawn = crops, step, noise

    def _quantize(self, model: Any, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        if mode != "noise":
            return type(model).quantize(model, inputs, mode, means)
        # EntropyBottleneck calls with [C, 1, B*h*w], all others with the batch first.
        axis = 1 if isinstance(model, EntropyBottleneck) else 0
        crops = len(self._crops)
        size = inputs.shape[2] if axis else inputs.shape[0]
        if not crops or size % crops or (not axis and size != crops):
            raise ValueError(f"a batch of shape {tuple(inputs.shape)} is not of the {crops} crops that were announced")
        noise = self._take(inputs.numel() // crops, inputs.device)
        if axis:
            noise = noise.view(crops, inputs.shape[0], -1).transpose(0, 1)
        return inputs + noise.reshape(inputs.shape)

    def _take(self, count: int, device: torch.device) -> Tensor:
        """[crops, count], the next values of each crop."""
        first, last = self._taken, self._taken + count
        if self._drawn is None or self._drawn.shape[1] < last:
            self._drawn = noise_of(self._seed, self._step, self._crops, max(last, self._usual))
        if self._drawn.device != device:
            self._drawn = self._drawn.to(device, non_blocking=True)
        self._taken = last
        return self._drawn[:, first:last]
