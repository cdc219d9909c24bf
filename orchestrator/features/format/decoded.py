"""One tap of a shard without compression: for a node's own disk, never for the store.

    rows     uint8 [n, bytes of a crop]   crop by crop, in the form `Form.plain` of the stored ones
    metadata {"tap": JSON of format, tap, codec and shape of a crop}

A safetensors file, about twice the size of the stored object. It is mapped into memory, and a crop is read without any
arithmetic.
"""

from __future__ import annotations

import json
import struct

import numpy as np
from safetensors.numpy import save

from orchestrator.features.format.blob import Blob, MemoryBlob
from orchestrator.features.format.form import Array, Form, plain
from orchestrator.features.format.key import FeatureError, Tap, parted
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.spec.messages import shown

FORMAT = 1
KIND = f"decoded-{FORMAT}"  # in the names of files, so that those of another format are never read


def decode(tap: Tap, stored: StoredTap) -> bytes:
    """The file of a stored object. Raises FeatureError if a crop is damaged."""
    form = stored.form.plain
    rows = np.empty((len(stored), form.row_bytes), dtype=np.uint8)
    for index in range(len(stored)):
        rows[index] = plain(stored.form, stored.packed(index))
    head = {"format": FORMAT, "tap": parted(tap)[0], "codec": form.codec, "shape": form.shape}
    return save({"rows": rows}, metadata={"tap": json.dumps(head)})


class DecodedTap:
    """An opened file of `decode`.

    Args:
        tap: the tap that it must hold.
        blob: the file; `close` closes it too.

    Attributes:
        form: of its crops.

    Raises:
        FeatureError: it is not such a file, or it is cut off.
    """

    def __init__(self, tap: Tap, blob: Blob) -> None:
        self._blob = blob
        try:
            (length,) = struct.unpack("<Q", blob.read_at(0, 8))
            header = json.loads(bytes(blob.read_at(8, length)))
            head = json.loads(header["__metadata__"]["tap"])
            if (head["format"], head["tap"]) != (FORMAT, parted(tap)[0]):
                raise ValueError(", ".join(f"{name} {shown(head[name])}" for name in ("format", "tap")))
            self.form = Form(head["codec"], tuple(head["shape"]))
            begin, end = header["rows"]["data_offsets"]
            rows = np.frombuffer(blob.read_at(8 + length + begin, end - begin), dtype=np.uint8)
            self._rows: Array = rows.reshape(-1, self.form.row_bytes)
        except (ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError, struct.error) as error:
            raise FeatureError(f"tap {tap}: not a decoded tap ({' '.join(str(error).split())})") from error

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def memory_bytes(self) -> int:
        """The file's size, 0 if it is not in memory."""
        return self._blob.size if isinstance(self._blob, MemoryBlob) else 0

    def packed(self, index: int) -> Array:
        """One crop in `form`, uint8 [bytes], read-only and not copied. For any thread."""
        return self._rows[index]

    def close(self) -> None:
        """Closes the blob."""
        self._rows = np.empty((0, 0), dtype=np.uint8)
        self._blob.close()
