"""The entropy model: all that encoder and decoder must compute alike, in whole numbers.

It turns the hyper-latent's symbols into the tables of the latent's symbols. Decoders whose entropy models have one `id`
read each other's streams, whatever their transforms are.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lic_codec.errors import CodecError
from lic_codec.tables import Indexes, Symbols, Table, gaussians
from lic_codec.whole import LARGEST, VALUE_BITS, Layer, Whole, through

FORMAT = 1  # of the file
STEP = 2.0**-VALUE_BITS
Float = npt.NDArray[np.float32]
Take = Callable[[slice, Indexes, Whole], Symbols]  # channels, their tables and means -> their symbols


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """How far from its whole number a symbol is reconstructed, towards 0: CompressAI's `QuantABCD` network.

    Only pixels depend on it, so it is computed in float32, and is not part of an entropy model's id.

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
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = values @ weight + bias
            if place < len(self.weights) - 1:
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
        """SHA-256, hex, of all whole numbers, tables and gains."""
        found = hashlib.sha256(json.dumps(self._settings()).encode())
        for name, values in sorted(_arrays(self.networks).items()):
            if ".offsets." not in name:
                whole = np.ascontiguousarray(values, np.float64) + 0.0  # -0.0 becomes 0.0
                found.update(f"{name} {list(whole.shape)}".encode() + whole.astype("<f8").tobytes())
        return found.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `.npz` file: arrays and a JSON text, no pickle. Raises OSError."""
        settings = np.frombuffer(json.dumps(self._settings()).encode(), np.uint8)
        np.savez_compressed(path, settings=settings, **{n: _small(v) for n, v in _arrays(self.networks).items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EntropyModel:
        """Reads what `save` wrote. Raises CodecError: it is no such file, or of another format."""
        try:
            return cls.loads(Path(path).read_bytes())
        except OSError as error:
            raise CodecError(f"{path}: {error.strerror}") from None
        except CodecError as error:
            raise CodecError(f"{path}: {error}") from None

    @classmethod
    def loads(cls, content: bytes) -> EntropyModel:
        """As `load`, of the content of a file."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            settings = json.loads(arrays.pop("settings").tobytes())
            if settings["format"] != FORMAT:
                raise CodecError(f"of format {settings['format']}; this codec reads format {FORMAT}")
            networks = tuple(_network(shape, place, arrays) for place, shape in enumerate(settings["networks"]))
            gains, variable = tuple(float(gain) for gain in settings["gains"]), bool(settings["variable"])
            return cls(gains=gains, variable=variable, networks=networks, least_side=int(settings["least_side"]))
        except CodecError:
            raise
        except Exception as error:  # whatever NumPy, zip and JSON make of arbitrary bytes
            raise CodecError(f"no entropy model: {error}") from error

    def _settings(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "gains": self.gains,
            "variable": self.variable,
            "least_side": self.least_side,
            "networks": [
                {
                    "means": network.means,
                    "groups": network.groups,
                    "gain_before_z": network.gain_before_z,
                    "z_lowest": [table.lowest for table in network.z_tables],
                    "h_s": _shapes(network.h_s),
                    "group_networks": [_shapes(layers) for layers in network.group_networks],
                }
                for network in self.networks
            ],
        }


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


def _shapes(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    return [{"transposed": layer.transposed, "slope": layer.slope} for layer in layers]


def _arrays(networks: Sequence[EntropyNetwork]) -> dict[str, npt.NDArray[Any]]:
    """Name -> array, of all networks."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for place, network in enumerate(networks):
        arrays[f"{place}.medians"] = network.medians
        arrays[f"{place}.z_frequencies"] = np.concatenate([table.frequencies for table in network.z_tables])
        arrays[f"{place}.z_lengths"] = np.array([len(table.frequencies) for table in network.z_tables])
        stacks = {"h_s": network.h_s, **{f"group{n}": layers for n, layers in enumerate(network.group_networks)}}
        for name, layers in stacks.items():
            for number, layer in enumerate(layers):
                arrays[f"{place}.{name}.{number}.weight"] = layer.weight
                arrays[f"{place}.{name}.{number}.bias"] = layer.bias
        if network.offsets is not None:
            for number, weight in enumerate(network.offsets.weights):
                arrays[f"{place}.offsets.{number}.weight"] = weight
                arrays[f"{place}.offsets.{number}.bias"] = network.offsets.biases[number]
    return arrays


def _small(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers in the smallest signed type that holds them; others as they are."""
    if not np.array_equal(values, np.round(values)):
        return values
    largest = float(np.abs(values).max(initial=0))
    kind = next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
    return values.astype(kind)


def _network(shape: Mapping[str, Any], place: int, arrays: Mapping[str, npt.NDArray[Any]]) -> EntropyNetwork:
    frequencies = np.split(arrays[f"{place}.z_frequencies"], np.cumsum(arrays[f"{place}.z_lengths"])[:-1])

    def layers(name: str, shapes: Sequence[Mapping[str, Any]]) -> tuple[Layer, ...]:
        return tuple(
            Layer(
                weight=arrays[f"{place}.{name}.{number}.weight"].astype(np.float32),
                bias=arrays[f"{place}.{name}.{number}.bias"].astype(np.float64),
                transposed=bool(one["transposed"]),
                slope=int(one["slope"]),
            )
            for number, one in enumerate(shapes)
        )

    offsets = None
    if f"{place}.offsets.0.weight" in arrays:
        numbers = range(sum(name.startswith(f"{place}.offsets.") and name.endswith("weight") for name in arrays))
        offsets = Offsets(
            weights=tuple(arrays[f"{place}.offsets.{number}.weight"].astype(np.float32) for number in numbers),
            biases=tuple(arrays[f"{place}.offsets.{number}.bias"].astype(np.float32) for number in numbers),
        )
    pairs = zip(shape["z_lowest"], frequencies, strict=True)
    return EntropyNetwork(
        medians=arrays[f"{place}.medians"].astype(np.float64),
        z_tables=tuple(Table(lowest=int(low), frequencies=found.astype(np.uint32)) for low, found in pairs),
        h_s=layers("h_s", shape["h_s"]),
        means=bool(shape["means"]),
        groups=tuple(int(size) for size in shape["groups"]),
        group_networks=tuple(layers(f"group{n}", one) for n, one in enumerate(shape["group_networks"])),
        gain_before_z=bool(shape["gain_before_z"]),
        offsets=offsets,
    )
