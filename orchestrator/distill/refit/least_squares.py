"""The weights of one convolution that give wanted outputs from given inputs, in the least-squares sense.

A convolution is linear in its weights: each output position is a row of the inputs that it reads, times the weights. A
transposed convolution of stride s is s x s ordinary ones, one for each place of an output position within a stride;
they share a bias. So both are one system of normal equations (He et al. 2017, "Channel Pruning for Accelerating Very
Deep Neural Networks", https://arxiv.org/abs/1707.06168, refit an ordinary convolution like this after its input
channels have been pruned).

Rows of the matrices are (input channel, kernel row, kernel column), then the bias; columns are output channels.
"""

from __future__ import annotations

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
        rows: how many output positions of a batch are used at most, drawn at random.
        generator: that draws them.
    """

    def __init__(self, layer: Convolution, rows: int, generator: torch.Generator) -> None:
        self._layer, self._rows, self._generator = layer, rows, generator
        size = weight_matrix(layer).shape[0]
        self.gram = torch.zeros(size, size, dtype=torch.float64)  # rows' inner products
        self._residual = torch.zeros(size, layer.out_channels, dtype=torch.float64)
        self.count = 0  # rows so far

    def add(self, inputs: Tensor, wanted: Tensor) -> None:
        """A batch: inputs [B, C, h, w], and the outputs that they should give [B, out channels, h', w']."""
        residual = wanted - self._layer(inputs)
        for columns, patches, place in _phases(self._layer, inputs):
            left = residual[place].permute(0, 2, 3, 1).flatten(0, 2)
            chosen = torch.randperm(len(patches), generator=self._generator)[: self._rows]
            rows, left = patches[chosen], left[chosen]
            rows = torch.cat((rows, rows.new_ones(len(rows), 1)), dim=1)
            where = torch.cat((columns, columns.new_tensor([len(self.gram) - 1])))
            self.gram[where[:, None], where] += (rows.T @ rows).double()
            self._residual[where] += (rows.T @ left).double()
            self.count += len(rows)

    def solve(self, ridge: float) -> Tensor:
        """The weights as a matrix, float64.

        Args:
            ridge: how strongly the weights are held to the present ones, as a share of the mean square of an input.
        """
        return weight_matrix(self._layer).double() + torch.linalg.solve(self.ridged(ridge), self._residual)

    def ridged(self, ridge: float) -> Tensor:
        """`gram`, with a share of its mean diagonal added to the diagonal."""
        diagonal = self.gram.diagonal()
        return self.gram + ridge * diagonal.mean() * torch.eye(len(self.gram), dtype=self.gram.dtype)


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


def _phases(layer: Convolution, x: Tensor) -> list[tuple[Tensor, Tensor, tuple[slice, ...]]]:
    """The ordinary convolutions that a layer consists of.

    Returns:
        For each of them the indices of its weights in the matrix, the inputs of each of its output positions
        [B * h * w, weights], and where these positions are in the output.
    """
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    channels = torch.arange(x.shape[1])[:, None] * kernel**2
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, kernel, padding=padding, stride=stride)
        every = (channels + torch.arange(kernel**2)).flatten()
        return [(every, patches.transpose(1, 2).flatten(0, 1), (slice(None),) * 4)]
    # output position j * stride + place reads input j + (place + padding - tap) / stride through each tap that divides
    reads = [
        [(tap, (place + padding - tap) // stride) for tap in range(kernel) if (place + padding - tap) % stride == 0]
        for place in range(stride)
    ]
    margin = max(abs(offset) for phase in reads for _, offset in phase)
    height, width = x.shape[2:]
    padded = F.pad(x, (margin,) * 4)
    found: list[tuple[Tensor, Tensor, tuple[slice, ...]]] = []
    for row, row_taps in enumerate(reads):
        for column, column_taps in enumerate(reads):
            taps = [(a * kernel + b, margin + top, margin + left) for a, top in row_taps for b, left in column_taps]
            shifted = [padded[:, :, top : top + height, left : left + width] for _, top, left in taps]
            patches = torch.stack(shifted, dim=2).flatten(1, 2)
            indices = (channels + torch.tensor([tap for tap, _, _ in taps])).flatten()
            place = (slice(None), slice(None), slice(row, None, stride), slice(column, None, stride))
            found.append((indices, patches.permute(0, 2, 3, 1).flatten(0, 2), place))
    return found
