"""Convolutions of whole numbers, exact on every machine.

Sums of whole numbers in float64 are exact below 2^53, whatever their order, so every library and any number of threads
give the same result. Weights are in steps of 2^-`WEIGHT_BITS`, activations in steps of 2^-`VALUE_BITS`, and rounded to
these after each layer (after Ballé et al., "Integer Networks for Data Compression with Latent-Variable Models", 2019,
which trains such networks; here trained ones are rounded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

WEIGHT_BITS = 12
VALUE_BITS = 6
LARGEST = 2.0**23  # of an activation, in steps: float32 holds such whole numbers exactly
LEAK_BITS = 14  # a leaky slope is in steps of 2^-14
BLOCK = 2048  # output positions computed at a time: bounds the memory

Whole = npt.NDArray[np.float32]  # [height, width, channels], whole numbers
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution and its activation, both of whole numbers.

    Attributes:
        weight: [k, k, channels in, channels out], in steps of 2^-WEIGHT_BITS. Stride 1 with padding k // 2; or, of a
            transposed one, stride 2 with k = 5, padding 2 and output padding 1.
        bias: [channels out], in steps of 2^-(WEIGHT_BITS + VALUE_BITS).
        transposed: doubles height and width.
        slope: of negative values, in steps of 2^-LEAK_BITS: 1 << LEAK_BITS is no activation, 0 a ReLU.
    """

    weight: Weights
    bias: npt.NDArray[np.float64]
    transposed: bool
    slope: int

    def __post_init__(self) -> None:
        reach = np.abs(self.weight.astype(np.float64)).sum(axis=(0, 1, 2)).max() * LARGEST
        if not reach + np.abs(self.bias).max() < 2.0**52:
            raise ValueError("weights so large that sums of whole numbers would not be exact")

    def __call__(self, x: Whole) -> Whole:
        """[h, w, channels in] -> [h, w, channels out], or of twice the height and width."""
        if not self.transposed:
            return self._convolved(x, self.weight, (self.weight.shape[0] // 2,) * 4)
        height, width, _ = x.shape
        out = np.empty((height, 2, width, 2, self.weight.shape[3]), np.float32)
        # An output of even place takes taps 4, 2, 0 from inputs -1, 0, +1 of it; one of odd place 3, 1 from 0, +1.
        for row in (0, 1):
            for column in (0, 1):
                weight = self.weight[4 - row :: -2, 4 - column :: -2]
                pads = (1 - row, 1, 1 - column, 1)
                out[:, row, :, column] = self._convolved(x, weight, pads)
        return out.reshape(2 * height, 2 * width, -1)

    def _convolved(self, x: Whole, weight: Weights, pads: tuple[int, int, int, int]) -> Whole:
        top, bottom, left, right = pads
        rows, columns = weight.shape[:2]
        matrix = weight.reshape(-1, weight.shape[3]).astype(np.float64)
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)))
        windows = sliding_window_view(padded, (rows, columns), axis=(0, 1)).transpose(0, 1, 3, 4, 2)  # type: ignore[call-overload]
        height, width = windows.shape[:2]
        out = np.empty((height, width, weight.shape[3]), np.float32)
        step = max(1, BLOCK // width)
        for first in range(0, height, step):
            part = windows[first : first + step]
            sums = part.reshape(-1, matrix.shape[0]).astype(np.float64) @ matrix
            out[first : first + step] = self._rounded(sums + self.bias).reshape(-1, width, matrix.shape[1])
        return out

    def _rounded(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums in steps of 2^-(WEIGHT_BITS + VALUE_BITS) to activations in steps of 2^-VALUE_BITS, halves up."""
        values = np.clip(_divided(sums, WEIGHT_BITS), -LARGEST, LARGEST)
        if self.slope != 1 << LEAK_BITS:
            values = np.where(values < 0, _divided(values * self.slope, LEAK_BITS), values)
        return values


def _divided(values: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    return np.floor(values * 2.0**-bits + 0.5)


def through(layers: Sequence[Layer], x: Whole) -> Whole:
    """[h, w, channels] through all layers."""
    for layer in layers:
        x = layer(x)
    return x
