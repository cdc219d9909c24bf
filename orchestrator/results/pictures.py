"""pictures.json: photographs as the front's students decode them at one rate, for the eye (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.results.format import ResultFile, StrictModel

PICTURES = "pictures.json"


class Picture(StrictModel):
    """A crop after a codec."""

    name: str  # of a teacher, a trial or a classical codec
    bpp: float  # of the real bitstream of the whole crop
    psnr_db: float  # of the whole crop
    webp: str  # lossless, base64; the middle of a large crop


class Scene(StrictModel):
    """A crop of a validation photograph, and what the codecs make of it."""

    photograph: str
    why: str  # it was chosen, in words
    bpp: float  # that all codecs were to come near to
    original: str  # as `Picture.webp`
    pictures: tuple[Picture, ...]


class Pictures(ResultFile):
    """pictures.json."""

    format: Literal[1] = 1
    weights: dict[str, str]  # trial or teacher -> SHA-256
    scenes: tuple[Scene, ...]
