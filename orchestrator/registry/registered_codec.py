"""What MLflow runs when a registered student is loaded (models-from-code: this file is shipped with every version).

    codec = mlflow.pyfunc.load_model("models:/lic-distillery-quickstart-1f0c9e27a5b4@best-bd-rate")
    (stream,) = codec.predict({"data": [photograph]}, params={"rate": 1.5})["data"]   # a picture file's bytes
    (png,) = codec.predict({"data": [stream]})["data"]

`codec.unwrap_python_model()` is the `RegisteredCodec` itself: its `encode` and `decode` work on arrays of pixels, its
`figures` are what was stored with the version. It runs on `lic_codec`, which is shipped beside it: torch is not needed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from lic_codec import bundle, pictures, rates
from lic_codec.container import parse
from lic_codec.errors import CodecError

COLUMN = "data"
STREAM = b"LD"  # what a stream begins with, and no picture file


class RegisteredCodec(PythonModel):
    """A student of a sweep's Pareto front: photographs to bytes and back."""

    def load_context(self, context: Any) -> None:
        """Loads the version's bundle.

        Raises lic_codec.errors.CodecError: it is damaged, or is not the one that was registered.
        """
        folder = Path(context.artifacts["bundle"])
        self.figures = json.loads(Path(context.artifacts["figures"]).read_text(encoding="utf-8"))
        loaded = bundle.load(folder)
        actual = hashlib.sha256((folder / bundle.CARD).read_bytes()).hexdigest()
        if actual != (registered := self.figures["bundle_digest"]):
            raise CodecError(f"{folder / bundle.CARD}: its SHA-256 is {actual}, but {registered} was registered")
        self.card, self.codec = loaded.card, loaded.codec

    @property
    def middle_rate(self) -> float:
        """The rate that is coded at unless another one is given."""
        return float((len(self.card.lambdas) - 1) // 2)

    def encode(self, rgb: Any, rate: float | None = None) -> bytes:
        """uint8 [H, W, 3] of any size -> the stream. Raises lic_codec.errors.CodecError.

        Args:
            rgb: the pixels.
            rate: a rate point, 0 the lowest; 1.5 lies between two. None: the middle one.
        """
        return self.codec.encode(np.asarray(rgb), self._rate(rate))

    def decode(self, stream: bytes) -> Any:
        """A stream of this entropy model -> uint8 [H, W, 3]. Raises lic_codec.errors.CodecError."""
        return self.codec.decode(stream)

    # The bare np.ndarray is the annotation from which MLflow derives no schema, and about which it does not warn.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # type: ignore[type-arg]
        """Each row by itself: a picture file becomes a stream at `params["rate"]`, a stream becomes a PNG file.

        Transparency, ICC profile and orientation are kept.

        Args:
            context: not used.
            model_input: a data frame with the binary column `data`.
            params: `rate`, see `encode`.

        Raises:
            MlflowException: a row cannot be coded; one line that names it. A server answers it with status 400.
        """
        frame: Any = model_input
        rate = (params or {}).get("rate")
        coded = []
        for number, content in enumerate(frame[COLUMN]):
            try:
                coded.append(self._answer(content, rate))
            except CodecError as error:
                raise MlflowException(f"row {number}: {error}", error_code=INVALID_PARAMETER_VALUE) from None
        return frame.iloc[:, :0].assign(**{COLUMN: coded})

    def _answer(self, content: object, rate: float | None) -> bytes:
        if not isinstance(content, bytes | bytearray):
            raise CodecError(f"{type(content).__name__}: a picture file or a stream, as bytes")
        content = bytes(content)
        if content.startswith(STREAM):
            return pictures.encoded(self.codec.decode(content), parse(content).chunks)
        picture = pictures.read(content)
        return self.codec.encode(picture.rgb, self._rate(rate), picture.kept)

    def _rate(self, rate: float | None) -> rates.Rate:
        return rates.between(self.codec.entropy, self.middle_rate if rate is None else float(rate))


mlflow.models.set_model(RegisteredCodec())
