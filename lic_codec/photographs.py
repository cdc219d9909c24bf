"""The photographs of a folder, upright, known by the digest of their pixels: a file's name and form do not matter."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lic_codec import pictures
from lic_codec.codec import Rgb
from lic_codec.container import ChunkKind
from lic_codec.errors import CodecError, one_line

ENDINGS = frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in {*pictures.READ, "MPO"})


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A picture file whose pixels are known.

    Attributes:
        path: of the file.
        digest: SHA-256, hex, of "HxW\\n" and the upright RGB bytes.
        width, height: pixels, upright.
    """

    path: str
    digest: str
    width: int
    height: int

    @property
    def name(self) -> str:
        """The file's, on one line."""
        return one_line(Path(self.path).name)

    def load(self) -> Rgb:
        """uint8 [H, W, 3], upright. Raises CodecError: the file cannot be read, or has changed."""
        rgb = upright(self.path)
        if digest(rgb) != self.digest:
            raise CodecError(f"{self.path}: its pixels changed since the photographs were surveyed")
        return rgb


def survey(folder: str | os.PathLike[str]) -> tuple[Photograph, ...]:
    """All pictures of a folder by name; other files and subfolders are passed over.

    Raises:
        CodecError: no such folder, no picture in it, one that cannot be read, or one that occurs twice.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CodecError(f"{root}: no such folder")
    files = [
        path for path in sorted(root.iterdir()) if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    ]
    if not files:
        raise CodecError(f"{root}: no photographs in it")
    found: dict[str, Photograph] = {}
    for path in files:
        rgb = upright(path)
        known = digest(rgb)
        if known in found:
            raise CodecError(f"{path}: the same picture as {found[known].name}")
        found[known] = Photograph(path=str(path), digest=known, width=rgb.shape[1], height=rgb.shape[0])
    return tuple(found.values())


def upright(path: str | os.PathLike[str]) -> Rgb:
    """A picture file's pixels, uint8 [H, W, 3], turned as it says. Raises CodecError: see `pictures.read`.

    Transparency is refused: what is compared has colours alone.
    """
    picture = pictures.read(path)
    if ChunkKind.ALPHA in picture.kept:
        raise CodecError(f"{path}: transparent pixels; flatten it on a background")
    (orientation,) = picture.kept.get(ChunkKind.ORIENTATION, b"\1")
    if orientation == 1:
        return picture.rgb
    return np.asarray(pictures.turned(Image.fromarray(picture.rgb), orientation))


def digest(rgb: Rgb) -> str:
    """SHA-256, hex, of a photograph's size and pixels."""
    found = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}\n".encode())
    found.update(np.ascontiguousarray(rgb).data)
    return found.hexdigest()


def digests(photographs: Sequence[Photograph]) -> frozenset[str]:
    """What tells one set of photographs from another."""
    return frozenset(photograph.digest for photograph in photographs)
