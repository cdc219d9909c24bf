"""The weights of one convolution that give wanted outputs from given inputs, in the least-squares sense.

A convolution is linear in its weights: each output position is a row of the inputs that it reads, times the weights. A
transposed convolution of stride s is s x s ordinary ones, one for each place of an output position within a stride;
they share a bias. So both are one system of normal equations (He et al. 2017, "Channel Pruning for Accelerating Very
Deep Neural Networks", https://arxiv.org/abs/1707.06168, refit an ordinary convolution like this after its input
channels have been pruned).

Rows of the matrices are (input channel, kernel row, kernel column), then the bias; columns are output channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.ConvTranspose2d


class NormalEquations:
    """Of one layer, summed up over batches.

    What is solved for is the difference from the layer's present weights, so that a layer which already gives the
    wanted outputs stays as it is, and an input that is always zero keeps its weights.

    Args:
        layer: a convolution with a bias, without dilation and groups; its weights are the prior.
        rows: how many output positions of a batch are used at most, drawn at random, per weight that they read.
        generator: that draws them.
    """

    def __init__(self, layer: Convolution, rows: float, generator: torch.Generator) -> None:
        self._layer, self._rows, self._generator = layer, rows, generator
        size = weight_matrix(layer).shape[0]
        # of each phase the places of its weights, and its rows' inner products
        self._grams: list[tuple[Tensor, Tensor]] = []
        self._residual = torch.zeros(size, layer.out_channels, dtype=torch.float64)

    def add(self, inputs: Tensor, wanted: Tensor | None) -> None:
        """A batch.

        Args:
            inputs: [B, C, h, w].
            wanted: the outputs that they should give [B, out channels, h', w']; None: those that the layer gives now.
        """
        residual = None if wanted is None else wanted - self._layer(inputs)
        phases, windows = _phases(self._layer, inputs)
        for place, phase in enumerate(phases):
            positions = (len(windows), *windows.shape[2:4])
            where = _places(phase.taps, inputs.shape[1], len(self._residual))
            count = math.ceil(self._rows * len(where))
            chosen = torch.randperm(math.prod(positions), generator=self._generator)[:count]
            image, row, column = torch.unravel_index(chosen, positions)
            rows = windows[image, :, row, column][:, :, phase.tops, phase.lefts].flatten(1)
            rows = torch.cat((rows, rows.new_ones(len(rows), 1)), dim=1)
            if place == len(self._grams):
                self._grams.append((where, torch.zeros(len(where), len(where), dtype=torch.float64)))
            self._grams[place][1].add_(rows.T @ rows)
            if residual is not None:
                left = residual[:, :, phase.row :: phase.stride, phase.column :: phase.stride]
                self._residual[where] += (rows.T @ left[image, :, row, column]).double()

    def solve(self, ridge: float) -> Tensor:
        """The weights as a matrix, float64.

        Args:
            ridge: how strongly the weights are held to the present ones, as a share of the mean square of an input.
        """
        return weight_matrix(self._layer).double() + torch.linalg.solve(self.ridged(ridge), self._residual)

    def ridged(self, ridge: float) -> Tensor:
        """The rows' inner products, with a share of their mean diagonal added to the diagonal."""
        size = len(self._residual)
        gram = torch.zeros(size, size, dtype=torch.float64)
        for where, of_phase in self._grams:
            gram[where[:, None], where] += of_phase
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        return gram


def fits(layer: object) -> TypeGuard[Convolution]:
    """Whether a layer is a convolution that `NormalEquations` knows."""
    if not isinstance(layer, Convolution) or layer.bias is None or layer.groups != 1 or layer.dilation != (1, 1):
        return False
    square = len({*layer.kernel_size}) == len({*layer.stride}) == 1 and layer.padding_mode == "zeros"
    if isinstance(layer, nn.ConvTranspose2d):  # an output is `stride` times its input's size
        (kernel, _), (stride, _), padding = layer.kernel_size, layer.stride, layer.padding
        return square and kernel + layer.output_padding[0] - 2 * int(padding[0]) == stride
    return square and not isinstance(layer.padding, str)


def weight_matrix(layer: Convolution) -> Tensor:
    """[C * k * k + 1, out channels]: a layer's weights, and its bias as the last row."""
    assert layer.bias is not None
    order = (0, 2, 3, 1) if isinstance(layer, nn.ConvTranspose2d) else (1, 2, 3, 0)
    weights = layer.weight.detach().permute(order).flatten(0, 2)
    return torch.cat((weights, layer.bias.detach()[None]))


def set_weights(layer: Convolution, matrix: Tensor) -> None:
    """The inverse of `weight_matrix`."""
    assert layer.bias is not None
    channels, kernel = layer.in_channels, layer.kernel_size
    weights = matrix[:-1].reshape(channels, *kernel, layer.out_channels)
    order = (0, 3, 1, 2) if isinstance(layer, nn.ConvTranspose2d) else (3, 0, 1, 2)
    with torch.no_grad():
        layer.weight.copy_(weights.permute(order))
        layer.bias.copy_(matrix[-1])


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """One of the ordinary convolutions that a layer consists of.

    Its output positions are every `stride`-th of the layer's, from (`row`, `column`) on. It reads, of the window of
    inputs around each of them, the places (`tops`, `lefts`), through the kernel's `taps`.
    """

    taps: Tensor
    tops: Tensor
    lefts: Tensor
    row: int = 0
    column: int = 0
    stride: int = 1


def _phases(layer: Convolution, x: Tensor) -> tuple[list[_Phase], Tensor]:
    """A layer's ordinary convolutions, and the windows of inputs [B, C, h, w, k, k] that they read (a view)."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    if isinstance(layer, nn.Conv2d):
        every = torch.arange(kernel**2)
        windows = F.pad(x, (padding,) * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
        return [_Phase(taps=every, tops=every // kernel, lefts=every % kernel)], windows
    # output position j * stride + place reads input j + (place + padding - tap) / stride through each tap that divides
    reads = [
        [(tap, (place + padding - tap) // stride) for tap in range(kernel) if (place + padding - tap) % stride == 0]
        for place in range(stride)
    ]
    margin = max(abs(offset) for phase in reads for _, offset in phase)
    phases = []
    for row, row_taps in enumerate(reads):
        for column, column_taps in enumerate(reads):
            taps = [(a * kernel + b, margin + top, margin + left) for a, top in row_taps for b, left in column_taps]
            tap, tops, lefts = torch.tensor(taps).T
            phases.append(_Phase(taps=tap, tops=tops, lefts=lefts, row=row, column=column, stride=stride))
    size = 2 * margin + 1
    return phases, F.pad(x, (margin,) * 4).unfold(2, size, 1).unfold(3, size, 1)


def _places(taps: Tensor, channels: int, size: int) -> Tensor:
    """Rows of the weight matrix (of `size` rows) that some taps of all channels have, and the bias."""
    kernel = (size - 1) // channels
    weights = (torch.arange(channels)[:, None] * kernel + taps).flatten()
    return torch.cat((weights, weights.new_tensor([size - 1])))
