"""How a tap of a shard is stored: a safetensors file with one zstd frame per crop, so that single crops can be read.

    frames   uint8 [bytes]   the crops' frames one after another, each with zstd's own checksum
    offsets  int64 [n + 1]   where in `frames` each begins, and where the last one ends
    metadata {"tap": JSON of format, tap, codec, shape and dtype of a crop}

What a frame holds, by codec:
    u8   an image, uint8 [3, S, S]. Green is subtracted from red and blue, then from each value its left neighbour,
         then its upper one, all modulo 256. Lossless; 0.6 of the raw size for `x`, 0.4 for `x_hat` on photographs.
    q8   floats [C, h, w] as int8 with a step for each channel and crop: max(|v|) / 127, but at least `MIN_STEP`. The
         steps, float16 [C], come first. What is read is within half a step of what was stored.
    f16  floats as float16.

Compression level 1: higher ones save a few percent and take several times as long.
"""

from __future__ import annotations

import json
import struct
import threading

import numpy as np
import zstandard
from safetensors.numpy import save

from orchestrator.features.format.blob import Blob, MemoryBlob
from orchestrator.features.format.form import Array, Form
from orchestrator.features.format.form import values as values_of
from orchestrator.features.format.key import FeatureError, Tap, codec_of, parted
from orchestrator.spec.messages import shown

FORMAT = 2
# In quantisation steps at the highest rate point: finer steps would store what no loss can see.
MIN_STEP = {"y": 1 / 16, "z": 1 / 16}
DTYPES = {"u8": "uint8", "q8": "int8", "f16": "float16"}


class _OfThread(threading.local):
    """A context takes longer to make than a small frame to read, and serves one thread at a time."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_of_thread = _OfThread()


def quantise(values: Array, min_step: float = 0.0) -> tuple[Array, Array]:
    """Floats [..., C, h, w] -> int8 of that shape and their steps, float16 [..., C].

    Raises FeatureError if a value is not finite, or so large that its step exceeds float16.
    """
    peak = np.abs(values).max(axis=(-2, -1))
    with np.errstate(over="ignore"):
        wanted = np.maximum(peak / 127, min_step)
        step = wanted.astype(np.float16)
        step = np.where(step.astype(np.float64) < wanted, np.nextafter(step, np.float16(np.inf)), step)
    if not np.isfinite(step).all():
        raise FeatureError("the teacher gave values that are not finite or too large")
    divisor = np.where(step > 0, step, 1).astype(np.float32)[..., None, None]
    return np.rint(values / divisor).astype(np.int8), step


def encode(tap: Tap, values: Array) -> bytes:
    """A shard's object, from uint8 [n, 3, S, S] for an image tap, from floats [n, C, h, w] for any other.

    Raises FeatureError if a value is not finite or too large, TypeError if an image is not uint8.
    """
    codec, (tap, _) = codec_of(tap)[:-2], parted(tap)
    try:
        payloads = _payloads(tap, codec, values)
    except FeatureError as error:
        raise FeatureError(f"tap {tap}: {error}") from None
    # A small table of matches, since a crop has hardly any: a third faster, and no larger.
    level = zstandard.ZstdCompressionParameters.from_level(1, hash_log=8, write_checksum=1)
    compressor = zstandard.ZstdCompressor(compression_params=level)
    frames = [compressor.compress(payload) for payload in payloads]
    offsets = np.cumsum([0, *map(len, frames)], dtype=np.int64)
    # One entry of metadata, no more: safetensors writes several in a random order, and equal input should give equal
    # bytes.
    head = {"format": FORMAT, "tap": tap, "codec": codec_of(tap), "shape": values.shape[1:], "dtype": DTYPES[codec]}
    data = np.frombuffer(b"".join(frames), dtype=np.uint8)
    return save({"offsets": offsets, "frames": data}, metadata={"tap": json.dumps(head)})


class StoredTap:
    """An opened object of a shard, whose crops can be read one by one.

    Args:
        tap: the tap that it must hold.
        blob: the object; `close` closes it too.

    Attributes:
        form: of its crops.

    Raises:
        FeatureError: it is not an object of this format and tap, or it is cut off.
    """

    def __init__(self, tap: Tap, blob: Blob) -> None:
        tap, _ = parted(tap)
        self._tap, self._blob = tap, blob
        try:
            (length,) = struct.unpack("<Q", blob.read_at(0, 8))
            if length > min(blob.size, 10_000):
                raise ValueError("no header")
            header = json.loads(bytes(blob.read_at(8, length)))
            head = json.loads(header["__metadata__"]["tap"])
            if (head["format"], head["tap"], head["codec"]) != (FORMAT, tap, codec_of(tap)):
                raise ValueError(", ".join(f"{name} {shown(head[name])}" for name in ("format", "tap", "codec")))
            self.form = Form(codec_of(tap)[:-2], tuple(head["shape"]))
            self._row_bytes = self.form.row_bytes
            begin, end = header["offsets"]["data_offsets"]
            self._offsets = np.frombuffer(bytes(blob.read_at(8 + length + begin, end - begin)), dtype=np.int64)
            first, last = header["frames"]["data_offsets"]
            self._first = 8 + length + first
            if self._offsets[-1] != last - first or self._first + last - first > blob.size:
                raise ValueError("cut off")
        except (ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError, struct.error) as error:
            raise FeatureError(f"tap {tap}: not a stored tap ({' '.join(str(error).split())})") from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def memory_bytes(self) -> int:
        """The object's size, 0 if it is not in memory."""
        return self._blob.size if isinstance(self._blob, MemoryBlob) else 0

    def packed(self, index: int) -> Array:
        """One crop in `form`, uint8 [bytes], read-only. Raises FeatureError if its frame is damaged. For any thread."""
        begin, end = self._offsets[index : index + 2]
        try:
            frame = self._blob.read_at(self._first + int(begin), int(end - begin))
            payload = _of_thread.decompressor.decompress(frame)
            if len(payload) != self._row_bytes:
                raise ValueError(f"{len(payload)} bytes, {self._row_bytes} expected")
            return np.frombuffer(payload, dtype=np.uint8)
        except (zstandard.ZstdError, ValueError, EOFError) as error:
            raise FeatureError(f"tap {self._tap}: crop {index} of the shard is damaged ({error})") from error

    def row(self, index: int) -> Array:
        """One crop: uint8 for an image tap, float32 for any other. Raises FeatureError if its frame is damaged."""
        return values_of(self.form, self.packed(index))

    def rows(self) -> Array:
        """All crops [n, ...]; see `row`."""
        return np.stack([self.row(index) for index in range(len(self))])

    def close(self) -> None:
        """Closes the blob."""
        self._blob.close()


def _payloads(tap: Tap, codec: str, values: Array) -> list[bytes]:
    if codec == "u8":
        if values.dtype != np.uint8:
            raise TypeError(f"tap {tap} is stored from uint8, not {values.dtype}")
        stored = values.copy()
        stored[:, 0] -= values[:, 1]  # modulo 256, like all below
        stored[:, 2] -= values[:, 1]
        stored[..., 1:] -= stored[..., :-1].copy()
        stored[..., 1:, :] -= stored[..., :-1, :].copy()
        return [row.tobytes() for row in stored]
    if codec == "q8":
        stored, steps = quantise(values, MIN_STEP.get(tap, 0.0))
        return [step.tobytes() + row.tobytes() for step, row in zip(steps, stored, strict=True)]
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise FeatureError("the teacher gave values that are not finite or too large")
    return [row.tobytes() for row in stored]
