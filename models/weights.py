"""Weights on disk: self-describing safetensors, without the range coder's tables (`RateLadder.update` rebuilds them).

A file holds a ladder's parameters and, as one JSON entry of the safetensors metadata, what is needed to build it:
family, N, M, Z, encoder_N, kind, lambdas, distortion. It is one entry because safetensors writes several in random
order, and equal weights must give equal bytes. Reading the metadata and the digest does not import torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from safetensors import SafetensorError, safe_open

from models.families import FAMILIES, Distortion, Kind
from models.one_line import OneLineError
from models.plain_number import shown

if TYPE_CHECKING:
    import torch

    from models.ladder import RateLadder

ENTRY = "rate_ladder"
DESCRIPTION = ("family", "N", "M", "Z", "encoder_N", "kind", "lambdas", "distortion")


class WeightsError(OneLineError, ValueError):
    """A weights file that is missing, damaged or of another network; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class WeightsDescription:
    """What a weights file says of its ladder; the fields are those of `models.ladder.RateLadder`."""

    family: str
    N: int
    M: int
    Z: int
    encoder_N: int
    kind: Kind
    lambdas: tuple[float, ...]
    distortion: Distortion
    notes: Mapping[str, str]  # whatever else the writer noted, such as the recipe


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file, hex. Raises OSError."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_metadata(path: str | os.PathLike[str]) -> WeightsDescription:
    """The description in a weights file; each value by itself is one that there is.

    Raises:
        WeightsError: no file, not safetensors, or not written by `save_ladder`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: {(str(error).splitlines() or ['cannot be read'])[0]}") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: its metadata is no description; write it with models.weights.save_ladder")
    if "N" in metadata:
        metadata.setdefault("Z", metadata["N"])  # older files have no Z: it was N
        metadata.setdefault("encoder_N", metadata["N"])  # older files have none: it was N
        metadata.setdefault("distortion", "mse")  # older files have none: it was MSE
    missing = [name for name in DESCRIPTION if name not in metadata]
    if missing:
        raise WeightsError(f"{path}: its metadata lacks {', '.join(missing)}; write it with models.weights.save_ladder")
    notes = {name: value for name, value in metadata.items() if name not in DESCRIPTION}
    for name in DESCRIPTION:
        if not _is_described(name, metadata[name]):
            raise WeightsError(f"{path}: {shown(metadata[name])} in its metadata is no {name}")
    described = {name: metadata[name] for name in DESCRIPTION} | {"lambdas": tuple(metadata["lambdas"])}
    return WeightsDescription(**described, notes=notes)


def _is_described(name: str, value: object) -> bool:
    if name in ("N", "M", "Z", "encoder_N"):
        return type(value) is int
    if name == "lambdas":
        return isinstance(value, list) and value != [] and all(type(entry) in (int, float) for entry in value)
    known = {"family": tuple(FAMILIES), "kind": get_args(Kind), "distortion": get_args(Distortion)}
    return value in known[name]


def save_ladder(
    path: str | os.PathLike[str], ladder: RateLadder, *, dtype: torch.dtype | None = None, **notes: str
) -> None:
    """Writes a ladder's parameters; a reader sees the whole file or none. Raises OSError.

    Args:
        path: a `.safetensors` file.
        dtype: the stored type (float16 halves the file); None keeps fp32.
        notes: further metadata, such as the recipe.
    """
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().to(device="cpu", dtype=dtype or value.dtype).contiguous()
        for name, value in ladder.named_parameters()
    }
    description = {name: getattr(ladder, name) for name in DESCRIPTION}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata={ENTRY: json.dumps({**notes, **description}, sort_keys=True)})
    temporary.replace(path)


def load_ladder(path: str | os.PathLike[str]) -> RateLadder:
    """The ladder that a file describes, with the file's parameters (fp32, on the CPU, in eval mode).

    Raises:
        WeightsError: as `read_metadata`, or the parameters are not those of the network described.
    """
    from models.ladder import RateLadder

    described = read_metadata(path)
    try:
        ladder = RateLadder(
            family=described.family,
            N=described.N,
            M=described.M,
            Z=described.Z,
            encoder_N=described.encoder_N,
            lambdas=described.lambdas,
            kind=described.kind,
            distortion=described.distortion,
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: no ladder can be built from its metadata: {error}") from error
    assign(ladder, read_tensors(path), source=str(path))
    return ladder.eval()


def ladder_from(weights: bytes) -> RateLadder:
    """As `load_ladder`, of the content of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(weights)
        return load_ladder(path)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Parameter name -> tensor, in the stored type. Raises WeightsError: no file, cut off, or not safetensors."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: {(str(error).splitlines() or ['cannot be read'])[0]}") from error


def assign(ladder: RateLadder, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copies `tensors` into the ladder's parameters; names and shapes must be the same, and all values finite.

    Raises:
        WeightsError: names the first parameter that differs, or is not finite.
    """
    import torch

    parameters = dict(ladder.named_parameters())
    for name in sorted(parameters.keys() | tensors.keys()):
        actual, wanted = (tuple(group[name].shape) if name in group else None for group in (tensors, parameters))
        if actual != wanted:
            raise WeightsError(f"{source}: parameter {name} has shape {actual}, the network's has {wanted}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise WeightsError(
                f"{source}: parameter {name} is not finite: the file is damaged, or its training diverged"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def slice_from(ladder: RateLadder, teacher: RateLadder) -> list[str]:
    """Initialises a narrower ladder from a wider one: each parameter takes the leading channels of the teacher's.

    Returns:
        Names of parameters that keep their initial values, because the teacher has none of that name and rank, or a
        narrower one.
    """
    import torch

    wide = dict(teacher.named_parameters())
    kept = []
    with torch.no_grad():
        for name, parameter in ladder.named_parameters():
            source = wide.get(name)
            if (
                source is None
                or source.dim() != parameter.dim()
                or any(wide_size < size for wide_size, size in zip(source.shape, parameter.shape, strict=True))
            ):
                kept.append(name)
                continue
            parameter.copy_(source[tuple(slice(size) for size in parameter.shape)])
    return kept
