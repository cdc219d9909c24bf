"""What a version of a registered model consists of: the bundle that it runs on, weights, figures, card, and code."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lic_codec
from lic_codec.bundle import CARD as BUNDLE_CARD
from orchestrator.registry.model_card import PLOT
from orchestrator.results.bundles import CodingCosts
from orchestrator.results.front import CodedStudent

# Of lic_codec: what coding takes, without command line and measuring.
SHIPPED_CODE = (
    *("__init__.py", "bundle.py", "codec.py", "container.py", "entropy.py", "entropy_file.py", "errors.py"),
    *("gaussians.npz", "json_values.py", "pictures.py", "rates.py", "tables.py", "tiles.py", "whole.py"),
)
REQUIREMENTS = ("mlflow", "onnxruntime", "numpy", "constriction", "pillow")
COLUMN = "data"
WEIGHTS, BUNDLE, CARD = "weights.safetensors", "bundle", "README.md"
FIGURES = {
    *("trial_id", "teacher", "student", "params", "macs_per_pixel", "weights_digest", "entropy_id"),
    *("bd_rate_pct", "images_seen", "points", "validation"),
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a version is made from.

    Attributes:
        student: on the front.
        weights: the content of its weights file.
        bundle: name -> content of its bundle's files.
        costs: of coding with it; None: not measured.
        card: Markdown.
        plot: SVG.
    """

    student: CodedStudent
    weights: bytes
    bundle: Mapping[str, bytes]
    card: str
    plot: str
    costs: CodingCosts | None = None


def save(folder: Path, content: Content) -> None:
    """Writes a version's files into a folder that it creates. Raises OSError."""
    import mlflow.pyfunc

    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # what it does step by step
    with tempfile.TemporaryDirectory() as temporary:
        stored, figures, unpacked = (Path(temporary, name) for name in (WEIGHTS, "figures.json", BUNDLE))
        stored.write_bytes(content.weights)
        unpacked.mkdir()
        for name, data in content.bundle.items():
            (unpacked / name).write_bytes(data)
        described = content.student.model_dump(mode="json", include=FIGURES)
        described["bundle_digest"] = hashlib.sha256(content.bundle[BUNDLE_CARD]).hexdigest()
        if content.costs is not None:
            described["bundle_costs"] = content.costs.model_dump(mode="json", exclude={"format"})
        figures.write_text(json.dumps(described, indent=1), encoding="utf-8")
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("registered_codec.py")),
            # URLs: it would decode %20 in a path.
            artifacts={"bundle": unpacked.as_uri(), "weights": stored.as_uri(), "figures": figures.as_uri()},
            code_paths=[str(_shipped(Path(temporary, "code")))],
            # Inferring them would load the model in a subprocess.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            signature=_signature(content.bundle),
            input_example=_example(),
        )
    (folder / CARD).write_text(content.card, encoding="utf-8")
    (folder / PLOT).write_text(content.plot, encoding="utf-8")


def middle_rate(bundle: Mapping[str, bytes]) -> float:
    """The rate that is coded at unless another one is given; as `RegisteredCodec.middle_rate`."""
    return float((len(json.loads(bundle[BUNDLE_CARD])["lambdas"]) - 1) // 2)


def _signature(bundle: Mapping[str, bytes]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    column = Schema([ColSpec("binary", COLUMN)])
    return ModelSignature(column, column, ParamSchema([ParamSpec("rate", "double", middle_rate(bundle))]))


def _example() -> Any:
    """A photograph of 64 x 64 pixels, a gradient, as a PNG file in a data frame."""
    import numpy as np
    import pandas
    from PIL import Image

    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([4 * rows, 4 * columns, rows + columns], axis=2)).save(buffer, "PNG")
    return pandas.DataFrame({COLUMN: [buffer.getvalue()]})


def _shipped(to: Path) -> Path:
    """A copy of the runtime."""
    source, target = Path(lic_codec.__file__).parent, to / "lic_codec"
    target.mkdir(parents=True)
    for name in SHIPPED_CODE:
        shutil.copyfile(source / name, target / name)
    return target
