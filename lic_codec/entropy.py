"""The entropy model: all that encoder and decoder must compute alike, in whole numbers.

It turns the hyper-latent's symbols into the tables of the latent's symbols. Decoders whose entropy models have one `id`
read each other's streams, whatever their transforms are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lic_codec.tables import Indexes, Symbols, Table, gaussians
from lic_codec.whole import LARGEST, VALUE_BITS, Layer, Whole, through

FORMAT = 1  # of what `EntropyModel.arrays` gives
STEP = 2.0**-VALUE_BITS
Float = npt.NDArray[np.float32]
Take = Callable[[slice, Indexes, Whole], Symbols]  # channels, their tables and means -> their symbols


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """How far from its whole number a symbol is reconstructed, towards 0: CompressAI's `QuantABCD` network.

    Only pixels depend on it: it is not part of an entropy model's id.

    Attributes:
        weights, biases: of its three linear layers, weights [in, out].
    """

    weights: tuple[Float, ...]
    biases: tuple[Float, ...]

    def of(self, scales: Whole, gain: float) -> Float:
        """The offset at each scale, which is not multiplied by the gain yet."""
        known, places = _different(scales)
        deviations = np.maximum(known * np.float32(STEP * gain), np.float32(gaussians().scales[0]))
        values = np.stack((deviations, np.full_like(deviations, gain)), axis=1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            products = (values[:, place, None] * weight[place] for place in range(len(weight)))
            values = sum(products, start=bias)  # term by term: a matrix product's last bit is its library's
            if layer < len(self.weights) - 1:
                values = np.maximum(values, 0)
        found: Float = values[:, 0][places]
        return found


@dataclass(frozen=True, kw_only=True)
class EntropyNetwork:
    """Of one network of a rate ladder.

    Attributes:
        medians: [Z], of the hyper-latent, in steps of 2^-VALUE_BITS.
        z_tables: of each channel of the hyper-latent, around its median.
        h_s: the hyper-synthesis; its output is the latent's M scales, and then M means if `means`.
        means: whether it gives means.
        groups: channels of each group of the latent; they sum to M.
        group_networks: scales and means of each group from the hyper-synthesis' output and the groups before it; none
            if there is one group.
        gain_before_z: whether scales and means are in steps of the quantiser; else in units of the latent.
        offsets: of the reconstruction, or None.
    """

    medians: npt.NDArray[np.float64]
    z_tables: tuple[Table, ...]
    h_s: tuple[Layer, ...]
    means: bool
    groups: tuple[int, ...]
    group_networks: tuple[tuple[Layer, ...], ...] = ()
    gain_before_z: bool = False
    offsets: Offsets | None = None

    def hyper(self, z: Symbols) -> Whole:
        """Symbols of the hyper-latent [h, w, Z] -> scales (and means) or what groups see [4h, 4w, ...]."""
        z_hat = np.clip(z * 2.0**VALUE_BITS + self.medians, -LARGEST, LARGEST)
        return through(self.h_s, z_hat.astype(np.float32))

    def latent(self, hyper: Whole, gain: float, take: Take) -> Float:
        """What the synthesis reads [h, w, M], from what `hyper` gave.

        Args:
            hyper: of `hyper`.
            gain: inverse quantisation step.
            take: gets the channels of a group, the place of each symbol's Gaussian table [h, w, size] and its mean
                [h, w, size] in steps of 2^-VALUE_BITS; codes or decodes the symbols [h, w, size] and returns them.
        """
        scale_gain = 1.0 if self.gain_before_z else gain
        height, width, _ = hyper.shape
        y_hat = np.empty((height, width, sum(self.groups)), np.float32)  # in steps, if there are group networks
        first = 0
        for place, size in enumerate(self.groups):
            seen = hyper
            if self.group_networks:
                seen = through(self.group_networks[place], np.concatenate((hyper, y_hat[..., :first]), axis=2))
            channels = slice(first, first + size)
            scales = np.ascontiguousarray(seen[..., :size])
            means = seen[..., size:] if self.means else np.zeros_like(scales)
            indexes = _tables_of(scales, scale_gain)
            symbols = take(channels, indexes, means)
            if self.group_networks:
                y_hat[..., channels] = np.clip(symbols * 2.0**VALUE_BITS + means, -LARGEST, LARGEST)
            else:
                y_hat[..., channels] = self._reconstructed(symbols, scales, means, gain)
            first += size
        return y_hat * np.float32(STEP / gain) if self.group_networks else y_hat

    def _reconstructed(self, symbols: Symbols, scales: Whole, means: Whole, gain: float) -> Float:
        values = symbols.astype(np.float32)
        if self.offsets is not None:
            values -= np.sign(values) * self.offsets.of(scales, gain)
        if self.gain_before_z:
            return (values + means * np.float32(STEP)) / np.float32(gain)
        return values / np.float32(gain) + means * np.float32(STEP)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Name -> array: all that it consists of."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "medians": self.medians,
            "z_lowest": np.array([table.lowest for table in self.z_tables]),
            "z_lengths": np.array([len(table.frequencies) for table in self.z_tables]),
            "z_frequencies": np.concatenate([table.frequencies for table in self.z_tables]),
            "means": np.array(self.means),
            "groups": np.array(self.groups),
            "gain_before_z": np.array(self.gain_before_z),
        }
        stacks = {"h_s": self.h_s, **{f"group{place}": layers for place, layers in enumerate(self.group_networks)}}
        for name, layers in stacks.items():
            arrays[f"{name}.transposed"] = np.array([layer.transposed for layer in layers])
            arrays[f"{name}.slopes"] = np.array([layer.slope for layer in layers])
            for place, layer in enumerate(layers):
                arrays |= {f"{name}.{place}.weight": layer.weight, f"{name}.{place}.bias": layer.bias}
        if self.offsets is not None:
            for place, pair in enumerate(zip(self.offsets.weights, self.offsets.biases, strict=True)):
                arrays |= {f"offsets.{place}.weight": pair[0], f"offsets.{place}.bias": pair[1]}
        return arrays

    def least_bits(self, z_positions: int) -> float:
        """Fewer bits than these no encoder needs for so many positions of the hyper-latent."""
        y = 16 * sum(self.groups) * gaussians().least_bits
        return z_positions * (sum(table.least_bits for table in self.z_tables) + y)


@dataclass(frozen=True, kw_only=True)
class EntropyModel:
    """Of a rate ladder.

    Attributes:
        gains: of each rate point, the lowest rate first.
        variable: whether other gains are allowed; then there is one network, else one a rate point.
        networks: see `EntropyNetwork`.
        least_side: pixels; smaller photographs are padded to it.
    """

    gains: tuple[float, ...]
    variable: bool
    networks: tuple[EntropyNetwork, ...]
    least_side: int = 64

    @cached_property
    def id(self) -> str:
        """SHA-256, hex, of all whole numbers, tables, gains and shapes."""
        found = hashlib.sha256()
        for name, values in sorted(self.arrays().items()):
            if ".offsets." not in name:
                whole = np.ascontiguousarray(values, np.float64) + 0.0  # -0.0 becomes 0.0
                found.update(f"{name} {list(whole.shape)}".encode() + whole.astype("<f8").tobytes())
        return found.hexdigest()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Name -> array: all that it consists of."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "format": np.array(FORMAT),
            "gains": np.array(self.gains, np.float64),
            "variable": np.array(self.variable),
            "least_side": np.array(self.least_side),
            "networks": np.array(len(self.networks)),
        }
        for place, network in enumerate(self.networks):
            arrays |= {f"{place}.{name}": values for name, values in network.arrays().items()}
        return arrays


def _tables_of(scales: Whole, gain: float) -> Indexes:
    """The place of the Gaussian table for each scale, which is not multiplied by the gain yet."""
    known, places = _different(scales)
    bounds = gaussians().scales[:-1] / (gain * STEP)
    found: Indexes = np.searchsorted(bounds, known.astype(np.float64)).astype(np.uint16)[places]
    return found


def _different(scales: Whole) -> tuple[Whole, npt.NDArray[np.intp]]:
    """Values that hold all scales, and the place of each among them. Scales are whole numbers, mostly small."""
    if scales.min() >= 0 and scales.max() < 1 << 14:
        return np.arange(scales.max() + 1, dtype=np.float32), scales.astype(np.intp)
    known, places = np.unique(scales, return_inverse=True)
    return known, places.reshape(scales.shape)
