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


class CropNoise:
    """Replaces the noise of all entropy models inside a network by a function of (seed, step, crop).

    Within a step the entropy models draw one after the other, and so does one that is called for groups of channels:
    what a call draws depends on its place in the network's forward, which is the same on all ranks. A crop that is in
    a batch twice has the same noise twice, wherever the two are. Rounding is left as it is.

    Args:
        network: its entropy models' `quantize` is overridden, of these instances alone.
        seed: 0 or more.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        self._seed = seed
        self._generators: list[np.random.Generator] = []
        for model in network.modules():
            if isinstance(model, EntropyModel):
                model.quantize = partial(self._quantize, model)

    def begin(self, crops: Sequence[int], step: int) -> None:
        """Before every forward in training: the ids of its crops, in their order, and the step."""
        # NumPy's, for torch's CPU generator keeps 32 bits of a seed.
        self._generators = [np.random.default_rng([self._seed, step, crop]) for crop in crops]

    def _quantize(self, model: Any, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        if mode != "noise":
            return type(model).quantize(model, inputs, mode, means)
        # EntropyBottleneck calls with [C, 1, B*h*w], all others with the batch first.
        axis = 1 if isinstance(model, EntropyBottleneck) else 0
        crops = len(self._generators)
        size = inputs.shape[2] if axis else inputs.shape[0]
        if not crops or size % crops or (not axis and size != crops):
            raise ValueError(f"a batch of shape {tuple(inputs.shape)} is not of the {crops} crops that were announced")
        shape = (inputs.shape[0], size // crops) if axis else inputs.shape[1:]
        noise = np.stack([generator.random(shape, dtype=np.float32) for generator in self._generators], axis=axis) - 0.5
        return inputs + torch.from_numpy(noise.reshape(inputs.shape)).to(inputs)
