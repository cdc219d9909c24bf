"""What MLflow runs when a registered student is loaded (models-from-code: this file is shipped with every version).

    codec = mlflow.pyfunc.load_model("models:/lic-distillery-quickstart-1f0c9e27a5b4/1")
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
        """Builds the ladder from the version's weights (safetensors) and its range coder's tables.

        Raises models.weights.WeightsError: the weights are not those that were registered.
        """
        from models.bitstream import prepare_for_coding
        from models.weights import WeightsError, digest, load_ladder

        self.figures = json.loads(Path(context.artifacts["figures"]).read_text(encoding="utf-8"))
        weights, registered = context.artifacts["weights"], self.figures["weights_digest"]
        if (actual := digest(weights)) != registered:
            raise WeightsError(f"{weights}: its SHA-256 is {actual}, but {registered} was registered")
        self.coding = prepare_for_coding(load_ladder(weights))

    def encode(self, rgb: Any, rate_point: Any) -> bytes:
        """uint8 [H, W, 3] of any size -> the bitstream. Raises models.bitstream.CodecError.

        A whole number, whichever library's, is a rate point; any other real number is a gain.
        """
        from models.bitstream import encode_image

        return encode_image(self.coding, rgb, rate_point)

    def decode(self, stream: bytes) -> Any:
        """A bitstream of this entropy model -> uint8 [H, W, 3]. Raises models.bitstream.CodecError."""
        from models.bitstream import decode_image

        return decode_image(self.coding, stream)

    # The bare np.ndarray is the annotation from which MLflow derives no schema, and about which it does not warn.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # type: ignore[type-arg]
        """An array is encoded at `params["rate_point"]`, bytes are decoded."""
        given: object = model_input
        if isinstance(given, (bytes, bytearray)):
            return self.decode(bytes(given))
        if isinstance(given, np.ndarray):
            return self.encode(given, (params or {}).get("rate_point"))
        raise TypeError(f"a uint8 array to encode or bytes to decode, not {type(given).__name__}")


mlflow.models.set_model(RegisteredCodec())
