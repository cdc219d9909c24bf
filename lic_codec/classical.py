"""JPEG, WebP, AVIF and JPEG XL as they are run here: by Pillow and its plugin, each at about eight qualities."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features

from lic_codec.codec import Rgb
from lic_codec.errors import CodecError, missing
from lic_codec.measuring import Candidate, Sample


@dataclass(frozen=True, kw_only=True)
class Classical:
    """A codec of Pillow.

    Attributes:
        kind: Pillow's name of the format.
        title: to be read.
        qualities: from the smallest file to the largest.
        options: of saving, beside the quality.
    """

    kind: str
    title: str
    qualities: Sequence[int]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def described(self) -> str:
        """With the settings that decide its bytes."""
        settings = "".join(f", {name} {value}" for name, value in self.options.items())
        return (
            f"{self.title} by Pillow {PIL.__version__}{settings}, qualities {self.qualities[0]} to {self.qualities[-1]}"
        )


CLASSICAL = {
    "jpeg": Classical(kind="JPEG", title="JPEG", qualities=(5, 10, 20, 35, 50, 70, 85, 93), options={"optimize": True}),
    "webp": Classical(kind="WEBP", title="WebP", qualities=(1, 10, 25, 45, 65, 80, 90, 96), options={"method": 4}),
    "avif": Classical(kind="AVIF", title="AVIF", qualities=(15, 25, 35, 45, 55, 65, 75, 88), options={"speed": 6}),
    "jxl": Classical(kind="JXL", title="JPEG XL", qualities=(10, 25, 40, 55, 68, 78, 86, 93), options={"effort": 7}),
}


def classical(name: str) -> Candidate:
    """A codec by its name in `CLASSICAL`. Raises CodecError: there is none, or this Pillow cannot run it."""
    if name not in CLASSICAL:
        raise CodecError(f"{name} is not one of {', '.join(CLASSICAL)}")
    found = CLASSICAL[name]
    if name == "jxl":
        needs_jpeg_xl()
    elif name in ("webp", "avif") and not features.check(name):
        raise CodecError(f"{found.title}: this Pillow was built without it")
    return Candidate(name=name, description=found.described, open=partial(ClassicalCoder, found))


def needs_jpeg_xl() -> None:
    """Makes Pillow know JPEG XL. Raises CodecError: the plugin is not installed."""
    try:
        from pillow_jxl import JpegXLImagePlugin  # noqa: F401
    except ImportError:
        raise missing("pillow-jxl-plugin", "JPEG XL") from None


class ClassicalCoder:
    """Codes photographs with a codec of Pillow; see `lic_codec.measuring.Coder`."""

    def __init__(self, codec: Classical, threads: int) -> None:
        self._codec = codec
        self._options = dict(codec.options)
        if codec.kind == "AVIF":
            self._options["max_threads"] = threads
            AvifImagePlugin.DEFAULT_MAX_THREADS = threads  # of decoding; there is no other way to say it
        elif codec.kind == "JXL":
            needs_jpeg_xl()
            from pillow_jxl import JpegXLImagePlugin

            self._options["num_threads"] = threads if threads > 1 else 0  # 0: the caller's thread alone
            JpegXLImagePlugin.DECODE_THREADS = threads if threads > 1 else 0

    def samples(self, rgb: Rgb) -> Iterator[Sample]:
        """The photograph at each quality."""
        for quality in self._codec.qualities:
            begun = perf_counter()
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, self._codec.kind, quality=quality, **self._options)
            stream = buffer.getvalue()
            encoded = perf_counter()
            with Image.open(io.BytesIO(stream), formats=(self._codec.kind,)) as image:
                decoded = np.asarray(image.convert("RGB"))
            yield Sample(
                rate_point=quality,
                bits=8 * len(stream),
                decoded=decoded,
                stream=stream,
                encode_s=encoded - begun,
                decode_s=perf_counter() - encoded,
            )
