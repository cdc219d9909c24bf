"""What a version of a registered model consists of: weights, figures, and the code that they load with."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from orchestrator.results.front import CodedStudent

SHIPPED_CODE = "models/*.py"  # all of them: what a ladder imports grows with its families
REQUIREMENTS = ("mlflow", "torch", "torchvision", "compressai", "numpy", "safetensors")
DEFAULT_RATE_POINT = 2
WEIGHTS = "weights.safetensors"
FIGURES = {
    *("trial_id", "teacher", "student", "params", "macs_per_pixel", "weights_digest"),
    *("bd_rate_pct", "images_seen", "points", "validation"),
}


def save(folder: Path, student: CodedStudent, weights: bytes) -> None:
    """Writes a version's files.

    Args:
        folder: to be created.
        student: on the front.
        weights: the content of its weights file.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    with tempfile.TemporaryDirectory() as temporary:
        staged, root = Path(temporary, "code"), Path(__file__).parents[2]
        for path in root.glob(SHIPPED_CODE):
            target = staged / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        stored, figures = Path(temporary, WEIGHTS), Path(temporary, "figures.json")
        stored.write_bytes(weights)
        figures.write_text(student.model_dump_json(include=FIGURES, indent=1), encoding="utf-8")
        with warnings.catch_warnings():
            # An example would be run through the model here, which needs torch.
            warnings.filterwarnings("ignore", message=".*input example was not provided", category=UserWarning)
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=str(Path(__file__).with_name("registered_codec.py")),
                # URLs: it would decode %20 in a path.
                artifacts={"weights": stored.as_uri(), "figures": figures.as_uri()},
                code_paths=[str(staged / "models")],
                # Inferring them would build the model in a subprocess and import torch.
                pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
                signature=ModelSignature(params=ParamSchema([ParamSpec("rate_point", "long", DEFAULT_RATE_POINT)])),
            )
