"""Times one codec on photographs: `codec_times.py torch|bundle|jpeg|webp|avif|jxl MODEL RATES FILE...`, one thread.

A program of its own, for `benchmarks.whole.codec`: it imports whatever tree PYTHONPATH has, an older one as well. It
prints a line of JSON for each photograph and rate.
"""

from __future__ import annotations

import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Rgb = Any
Coder = tuple[Callable[[Rgb, int], bytes], Callable[[bytes], Rgb]]


def torch_codec(model: str) -> Coder:
    """Of a weights file."""
    import torch

    from models.bitstream import decode_image, encode_image, prepare_for_coding
    from models.weights import load_ladder

    torch.set_num_threads(1)
    coding = prepare_for_coding(load_ladder(model))
    return (lambda rgb, rate: encode_image(coding, rgb, rate)), (lambda stream: decode_image(coding, stream))


def bundle_codec(model: str) -> Coder:
    """Of a bundle."""
    from lic_codec.bundle import load
    from lic_codec.rates import rate_point

    codec = load(model, threads=1).codec
    return (lambda rgb, rate: codec.encode(rgb, rate_point(codec.entropy, rate))), codec.decode


def classical(kind: str) -> Coder:
    """Of Pillow; the rate is its quality."""
    if kind == "jxl":
        from pillow_jxl import JpegXLImagePlugin

        JpegXLImagePlugin.DECODE_THREADS = 0  # the caller's thread alone

    def encode(rgb: Rgb, quality: int) -> bytes:
        buffer = io.BytesIO()
        options = {"avif": {"max_threads": 1}, "jxl": {"num_threads": 0}}.get(kind, {})
        Image.fromarray(rgb).save(buffer, kind, quality=quality, **options)
        return buffer.getvalue()

    return encode, lambda stream: np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))


def main(kind: str, model: str, rates: str, files: list[str]) -> None:
    warnings.simplefilter("ignore")
    makers: dict[str, Callable[[str], Coder]] = {"torch": torch_codec, "bundle": bundle_codec}
    encode, decode = makers[kind](model) if kind in makers else classical(kind)
    for file in files:
        rgb = np.asarray(Image.open(file).convert("RGB"))
        for rate in map(int, rates.split(",")):
            encode(np.ascontiguousarray(rgb[::-1]), rate)  # a first call; and some codecs keep the last latent
            begun = time.perf_counter()
            stream = encode(rgb, rate)
            between = time.perf_counter()
            back = decode(stream)
            ended = time.perf_counter()
            mse = float(np.mean((rgb.astype(float) - back) ** 2))
            figures = {"bytes": len(stream), "psnr_db": 10 * np.log10(255**2 / mse), "pixels": rgb.size // 3}
            print(json.dumps(figures | {"encode_s": between - begun, "decode_s": ended - between}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
