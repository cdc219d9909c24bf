"""Classical codecs on photographs of a sweep, measured as our own: real bytes with their headers, decoded again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lic_codec.classical import CLASSICAL, Classical, ClassicalCoder
from orchestrator.evaluation.metric import Measured

if TYPE_CHECKING:
    from orchestrator.evaluation.rate_distortion import Named

CODECS: Mapping[str, Classical] = {codec.title: codec for codec in CLASSICAL.values()}


def measure_codec(codec: Classical, photographs: Iterable[Named]) -> list[Measured]:
    """Each photograph at each quality, which stands as the rate point.

    Args:
        codec: one of `CODECS`.
        photographs: names and pixels, uint8 [H, W, 3].
    """
    from orchestrator.evaluation.rate_distortion import distortions

    coder = ClassicalCoder(codec, threads=1)
    return [
        Measured(
            photograph=name,
            rate_point=sample.rate_point,
            bpp=sample.bits / (rgb.shape[0] * rgb.shape[1]),
            **distortions(rgb, sample.decoded),
            bytes=len(sample.stream),
            sha256=hashlib.sha256(sample.stream).hexdigest(),
        )
        for name, rgb in photographs
        for sample in coder.samples(rgb)
        if sample.stream is not None
    ]
