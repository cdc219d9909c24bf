"""Classical codecs through Pillow, measured as our own: real bytes, their headers included, decoded again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image, features

from orchestrator.evaluation.metric import Measured

if TYPE_CHECKING:
    from orchestrator.evaluation.rate_distortion import Named


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A format, and the qualities that its curve is measured at."""

    format: str  # Pillow's name
    library: str  # what Pillow calls its library
    qualities: Sequence[int]
    options: Mapping[str, int | bool | str]

    @property
    def made_by(self) -> str:
        """The encoder with its version and settings."""
        settings = ", ".join(f"{name} {value}" for name, value in self.options.items())
        version = features.version(self.library)
        return f"{self.library} {version}, Pillow {PIL.__version__}, {settings}, qualities {[*self.qualities]}"


CODECS: Mapping[str, Codec] = {
    "JPEG": Codec(
        format="JPEG",
        library="libjpeg_turbo",
        qualities=(5, 10, 20, 35, 50, 70, 85),
        options={"subsampling": "4:2:0", "optimize": True},
    ),
    "WebP": Codec(format="WEBP", library="webp", qualities=(1, 10, 25, 40, 60, 80), options={"method": 6}),
    "AVIF": Codec(
        format="AVIF",
        library="avif",
        qualities=(10, 25, 40, 55, 70, 85),
        options={"subsampling": "4:2:0", "speed": 6, "max_threads": 1},
    ),
}


def measure_codec(codec: Codec, photographs: Iterable[Named]) -> list[Measured]:
    """Each photograph at each quality, which stands as the rate point.

    Args:
        codec: one of `CODECS`, whose library Pillow has.
        photographs: names and pixels, uint8 [H, W, 3].
    """
    from orchestrator.evaluation.rate_distortion import distortions

    measured = []
    for name, rgb in photographs:
        for quality in codec.qualities:
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, format=codec.format, quality=quality, **codec.options)
            stream = buffer.getvalue()
            with Image.open(buffer) as image:
                decoded = np.asarray(image.convert("RGB"))
            measured.append(
                Measured(
                    photograph=name,
                    rate_point=quality,
                    bpp=8 * len(stream) / (rgb.shape[0] * rgb.shape[1]),
                    **distortions(rgb, decoded),
                    bytes=len(stream),
                    sha256=hashlib.sha256(stream).hexdigest(),
                )
            )
    return measured
