"""How a tap of a shard is stored: a safetensors file of one tensor `data`, in one zstd frame with a checksum.

`x` and `x_hat` are uint8 [n, 3, S, S], kept as differences from the left neighbour modulo 256: on the quickstart's
crops the frame is then 0.62 of the raw size where zstd alone gives 0.87, and packs faster. `y` is float16
[n, M, S/16, S/16]. Level 1: the higher levels win some hundredths and cost a multiple of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save

from orchestrator.features.key import CODECS, FeatureError, Tap

Array = npt.NDArray[Any]


def encode(tap: Tap, values: Array) -> bytes:
    """Bytes of uint8 [n, 3, S, S] for an image tap, of floats [n, M, h, w] for a latent.

    Raises FeatureError if a latent is not finite or beyond float16.
    """
    if CODECS[tap].startswith("u8"):
        if values.dtype != np.uint8:
            raise TypeError(f"tap {tap} is stored from uint8, not {values.dtype}")
        stored = values.copy()
        stored[..., 1:] -= values[..., :-1]  # modulo 256
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        if not np.isfinite(stored).all():
            raise FeatureError(f"tap {tap}: the teacher gave values that are not finite or exceed float16")
    # One entry of metadata, no more: safetensors writes several in a random order, and equal input should give equal
    # bytes.
    plain = save({"data": np.ascontiguousarray(stored)}, metadata={"tap": f"{tap} {CODECS[tap]}"})
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(plain)


def decode(tap: Tap, data: bytes) -> Array:
    """The array as encoded: uint8 for an image tap, float16 for a latent. Raises FeatureError on anything else."""
    try:
        stored = load(zstandard.decompress(data))["data"]
    except (zstandard.ZstdError, SafetensorError, KeyError, ValueError) as error:
        raise FeatureError(f"tap {tap}: not a stored tap ({' '.join(str(error).split())})") from error
    if stored.ndim != 4 or stored.dtype != (np.uint8 if CODECS[tap].startswith("u8") else np.float16):
        raise FeatureError(f"tap {tap}: holds {stored.dtype} {list(stored.shape)}")
    if stored.dtype == np.uint8:
        return np.cumsum(stored, axis=-1, dtype=np.uint8)
    return stored
