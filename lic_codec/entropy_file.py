"""An entropy model's file: a `.npz` of its arrays, without a pickle."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lic_codec.entropy import FORMAT, EntropyModel, EntropyNetwork, Offsets
from lic_codec.errors import CodecError
from lic_codec.tables import Table
from lic_codec.whole import Layer

Arrays = Mapping[str, npt.NDArray[Any]]


def save(model: EntropyModel, path: str | os.PathLike[str]) -> None:
    """Writes a file. Raises OSError."""
    np.savez_compressed(path, **{name: _small(values) for name, values in model.arrays().items()})


def load(path: str | os.PathLike[str]) -> EntropyModel:
    """Reads what `save` wrote. Raises CodecError: it is no such file, or of another format."""
    try:
        return loads(Path(path).read_bytes())
    except OSError as error:
        raise CodecError(f"{path}: {error.strerror}") from None
    except CodecError as error:
        raise CodecError(f"{path}: {error}") from None


def loads(content: bytes) -> EntropyModel:
    """As `load`, of the content of a file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if int(arrays["format"]) != FORMAT:
            raise CodecError(f"of format {int(arrays['format'])}; this codec reads format {FORMAT}")
        return EntropyModel(
            gains=tuple(float(gain) for gain in arrays["gains"]),
            variable=bool(arrays["variable"]),
            networks=tuple(_network(arrays, f"{place}.") for place in range(int(arrays["networks"]))),
            least_side=int(arrays["least_side"]),
        )
    except CodecError:
        raise
    except Exception as error:  # whatever NumPy and zip make of arbitrary bytes
        raise CodecError(f"no entropy model: {error}") from error


def _network(arrays: Arrays, prefix: str) -> EntropyNetwork:
    own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
    frequencies = np.split(own["z_frequencies"].astype(np.uint32), np.cumsum(own["z_lengths"])[:-1])
    pairs = zip(own["z_lowest"].tolist(), frequencies, strict=True)
    groups = tuple(own["groups"].tolist())
    offsets = [place for place in range(len(own)) if f"offsets.{place}.weight" in own]
    return EntropyNetwork(
        medians=own["medians"].astype(np.float64),
        z_tables=tuple(Table(lowest=lowest, frequencies=found) for lowest, found in pairs),
        h_s=_layers(own, "h_s"),
        means=bool(own["means"]),
        groups=groups,
        group_networks=tuple(_layers(own, f"group{place}") for place in range(len(groups)) if len(groups) > 1),
        gain_before_z=bool(own["gain_before_z"]),
        offsets=Offsets(
            weights=tuple(own[f"offsets.{place}.weight"].astype(np.float32) for place in offsets),
            biases=tuple(own[f"offsets.{place}.bias"].astype(np.float32) for place in offsets),
        )
        if offsets
        else None,
    )


def _layers(own: Arrays, name: str) -> tuple[Layer, ...]:
    shapes = zip(own[f"{name}.transposed"].tolist(), own[f"{name}.slopes"].tolist(), strict=True)
    return tuple(
        Layer(
            weight=own[f"{name}.{place}.weight"].astype(np.float32),
            bias=own[f"{name}.{place}.bias"].astype(np.float64),
            transposed=transposed,
            slope=slope,
        )
        for place, (transposed, slope) in enumerate(shapes)
    )


def _small(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers in the smallest signed type that holds them; others as they are."""
    if values.dtype == bool or not np.array_equal(values, np.round(values)):
        return values
    largest = float(np.abs(values).max(initial=0))
    kind = next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
    return values.astype(kind)
