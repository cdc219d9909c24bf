"""Writes a ladder as a bundle, which `lic_codec` runs without torch."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lic_codec import entropy_file
from lic_codec.bundle import ENTROPY, PARTS, Card, part_file
from lic_codec.json_values import Json
from models.bitstream import TorchTransforms
from models.ladder import RateLadder
from models.weights import DESCRIPTION
from models.whole_numbers import entropy_model

OPSET = 20


def export(
    ladder: RateLadder, folder: str | os.PathLike[str], *, name: str, figures: Mapping[str, Json] | None = None
) -> Path:
    """Writes a bundle; a reader sees all of it or nothing.

    Args:
        ladder: any ladder.
        folder: to be created.
        name: of the model.
        figures: what is known of it.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder is there and is not empty.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already, and not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    ladder = ladder.cpu().eval()
    ladder.set_precision(torch.float32)
    transforms, entropy = TorchTransforms(ladder), entropy_model(ladder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary, "bundle")
        made.mkdir()
        entropy_file.save(entropy, made / ENTROPY)
        for place, network in enumerate(ladder.networks):
            for part, (channels, side) in zip(PARTS, ((3, 192), (ladder.M, 12), (ladder.M, 12)), strict=True):
                _write(network.get_submodule(part), channels, side, made / part_file(part, place))
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(made.iterdir())}
        described: dict[str, Any] = {entry: getattr(ladder, entry) for entry in DESCRIPTION}
        card = Card(
            name=name,
            **described,
            entropy_id=entropy.id,
            analysis_margin=transforms.analysis_margin,
            synthesis_margin=transforms.synthesis_margin,
            absolute=transforms.absolute,
            files=files,
            figures=figures or {},
        )
        card.write(made)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return folder


def _write(module: nn.Module, channels: int, side: int, path: Path) -> None:
    """A module of one feature map [1, channels, h, w] in ONNX form, for any h and w that a ladder allows."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    any_size = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    example = torch.rand(1, channels, side, side + side // 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter and of what it traces
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=(any_size,),
            input_names=["x"],
            output_names=["y"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        ClearMetadataAndDocStringPass()(program.model)  # nodes name this machine's files that they are traced from
        program.save(str(path))
