"""What MLflow runs when a registered student is loaded (models-from-code: this file is shipped with every version).

    codec = mlflow.pyfunc.load_model("models:/lic-distillery-quickstart/1")
    stream = codec.predict(rgb, params={"rate_point": 2})   # uint8 [H, W, 3] -> bytes
    rgb = codec.predict(stream)                             # bytes -> uint8 [H, W, 3]

`codec.unwrap_python_model()` is the `RegisteredCodec` itself, with `encode`, `decode` and the figures stored with the
version. torch is imported when the model is loaded, not when it is logged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel


class RegisteredCodec(PythonModel):
    """A student of a sweep's Pareto front: photographs to bytes and back."""

    def load_context(self, context: Any) -> None:
        """Builds the ladder from the version's weights (safetensors) and its range coder's tables."""
        from models.bitstream import prepare_for_coding
        from models.weights import load_ladder

        self.coding = prepare_for_coding(load_ladder(context.artifacts["weights"]))
        self.figures = json.loads(Path(context.artifacts["figures"]).read_text())

    def encode(self, rgb: Any, rate_point: int | float) -> bytes:
        """uint8 [H, W, 3] of any size -> the bitstream. Raises models.bitstream.CodecError."""
        from models.bitstream import encode_image

        return encode_image(self.coding, rgb, rate_point)

    def decode(self, stream: bytes) -> Any:
        """A bitstream of these weights -> uint8 [H, W, 3]. Raises models.bitstream.CodecError."""
        from models.bitstream import decode_image

        return decode_image(self.coding, stream)

    # The bare np.ndarray is the annotation from which MLflow derives no schema, and about which it does not warn.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # type: ignore[type-arg]
        """An array is encoded at `params["rate_point"]`, bytes are decoded."""
        given: object = model_input
        if isinstance(given, (bytes, bytearray)):
            return self.decode(bytes(given))
        if isinstance(given, np.ndarray):
            return self.encode(given, (params or {})["rate_point"])
        raise TypeError(f"a uint8 array to encode or bytes to decode, not {type(given).__name__}")


mlflow.models.set_model(RegisteredCodec())
