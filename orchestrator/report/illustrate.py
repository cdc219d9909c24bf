"""Measures what the report alone shows: other teachers, classical codecs, and crops of photographs at equal rate."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator.evaluation.classical import CODECS, measure_codec
from orchestrator.evaluation.metric import Measured, psnr_db
from orchestrator.results.pictures import Picture, Scene
from orchestrator.results.references import Reference

if TYPE_CHECKING:
    from lic_codec.codec import Latent
    from models.bitstream import CodingLadder, Rgb
    from orchestrator.evaluation.rate_distortion import Named

PICTURE_SIDE = 256  # pixels: of a larger crop the middle is shown
STUDENTS_SHOWN = 4  # with the teacher and the original six pictures a scene, below 200 KB each: a page has at most 5 MB
TRIES = 7  # of a gain: then rates differ by about 1 %
CLOSE = 0.005  # a rate that is as near as this, relatively, is taken


def codec_references(photographs: Sequence[Named]) -> list[Reference]:
    """The classical codecs, on photographs of the sweep."""
    from orchestrator.evaluation.rate_distortion import curve

    found = []
    for name, codec in CODECS.items():
        rows = measure_codec(codec, photographs)
        points = tuple(curve(rows))
        found.append(Reference(name=name, kind="codec", made_by=codec.described, points=points, validation=tuple(rows)))
    return found


def chosen(rows: Sequence[Measured], rate_point: int) -> dict[str, tuple[str, float]]:
    """The photograph with the fewest bits at a rate point and the one with the most: name -> why, and its bpp."""
    there = sorted((row for row in rows if row.rate_point == rate_point), key=lambda row: row.bpp)
    if not there:
        return {}
    found = {there[-1].photograph: ("the most bits", there[-1].bpp)}
    return {there[0].photograph: ("the fewest bits", there[0].bpp)} | found


def scenes(
    photographs: Sequence[Named], wanted: Mapping[str, tuple[str, float]], weights: Mapping[str, bytes]
) -> list[Scene]:
    """The wanted photographs after each codec.

    Args:
        photographs: names and pixels, uint8 [H, W, 3].
        wanted: of `chosen`.
        weights: name -> the content of a ladder's file.
    """
    from models.bitstream import prepare_for_coding
    from models.weights import ladder_from

    ladders = {name: prepare_for_coding(ladder_from(content)) for name, content in weights.items()}
    pixels = dict(photographs)
    return [
        Scene(
            photograph=photograph,
            why=why,
            bpp=bpp,
            original=as_webp(pixels[photograph]),
            pictures=tuple(_picture(name, coding, pixels[photograph], bpp) for name, coding in ladders.items()),
        )
        for photograph, (why, bpp) in wanted.items()
    ]


def as_webp(rgb: Rgb) -> str:
    """The middle of a picture, lossless, base64."""
    height, width = rgb.shape[:2]
    top, left = (max(0, side - PICTURE_SIDE) // 2 for side in (height, width))
    middle = rgb[top : top + PICTURE_SIDE, left : left + PICTURE_SIDE]
    buffer = io.BytesIO()
    Image.fromarray(middle).save(buffer, format="WEBP", lossless=True, quality=100, method=4)
    return base64.b64encode(buffer.getvalue()).decode()


def nearest_rate(coding: CodingLadder, rgb: Rgb, bpp: float) -> bytes:
    """The stream whose rate is nearest to a wanted one: of the ladder's rate points, and of gains between its ends."""
    ladder, pixels = coding.ladder, rgb.shape[0] * rgb.shape[1]
    latent: Latent | None = None

    def coded(rate_point: int | float) -> bytes:
        nonlocal latent
        encoded, latent = coding.encode(rgb, rate_point, latent)  # the analysis is the same at all gains
        return encoded.stream

    def distance(stream: bytes) -> float:
        return abs(math.log(8 * len(stream) / pixels / bpp))

    if ladder.kind != "variable-rate":
        return min(map(coded, range(len(ladder.lambdas))), key=distance)
    low, high = ladder.gains[0], ladder.gains[-1]
    best = min(map(coded, (0, len(ladder.gains) - 1)), key=distance)
    for _ in range(TRIES):
        if distance(best) < CLOSE:
            break
        gain = math.sqrt(low * high)
        stream = coded(gain)
        best = min(best, stream, key=distance)
        low, high = (gain, high) if 8 * len(stream) / pixels < bpp else (low, gain)
    return best


def _picture(name: str, coding: CodingLadder, rgb: Rgb, bpp: float) -> Picture:
    from models.bitstream import decode_image
    from orchestrator.evaluation.rate_distortion import mse_of

    stream = nearest_rate(coding, rgb, bpp)
    decoded = decode_image(coding, stream)
    rate = 8 * len(stream) / (rgb.shape[0] * rgb.shape[1])
    return Picture(name=name, bpp=rate, psnr_db=psnr_db(mse_of(rgb, decoded)), webp=as_webp(decoded))
