"""Photographs on disk: which files of a folder are fit, their digests and their pixels.

A photograph is identified by the digest of its decoded pixels, so renaming or losslessly re-encoding a file changes
nothing downstream, and one picture in two folders is recognised.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]  # [H, W, 3], RGB

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
CONVERTED = ("RGB", "L", "1", "P", "YCbCr")  # modes with only one way to RGB


class PhotographError(ValueError):
    """Photographs that cannot be used: one line `path: reason` each."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    path: str  # absolute
    digest: str  # sha256 hex of its shape and its decoded, upright RGB bytes
    width: int  # pixels, upright
    height: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The photographs of a folder."""

    photographs: tuple[Photograph, ...]  # the fit ones, by file name
    findings: tuple[str, ...]  # `path: reason` for each unfit file


def survey(
    folder: str | os.PathLike[str],
    *,
    minimum_side: int,
    unfit: Literal["fail", "skip"] = "fail",
    exclude: Collection[str] = frozenset(),
) -> Survey:
    """Examines every image file of a folder (no subfolders; hidden files and other extensions are ignored).

    Pictures are turned upright by their EXIF tag; greyscale, palettes and fully opaque alpha become RGB. Unfit are:
    files that do not decode, CMYK and other colour spaces, transparency, 16 bits a channel, several frames, a side
    below `minimum_side` pixels, more pixels than Pillow's decompression-bomb limit, a picture that occurs twice, and
    pictures whose digest is in `exclude` (those of the other folder, so that train and validation stay apart).

    Raises PhotographError: with unfit="fail" if anything is unfit, and always if no file is fit.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise PhotographError(f"{root}: no such folder")
    images = (file for file in root.iterdir() if file.suffix.lower() in EXTENSIONS and file.name[0] != ".")
    files = sorted(file for file in images if file.is_file())
    if not files:
        raise PhotographError(f"{root}: no photographs in it (looked for *{', *'.join(EXTENSIONS)})")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter lock
        examined = list(pool.map(lambda file: _examine(file, minimum_side), files))
    fit: dict[str, Photograph] = {}
    findings = []
    for file, result in zip(files, examined, strict=True):
        if isinstance(result, str):
            findings.append(f"{file}: {result}")
        elif result.digest in exclude:
            findings.append(f"{file}: the same picture is in the other folder; train and validation must be apart")
        elif result.digest in fit:
            findings.append(f"{file}: the same picture as {Path(fit[result.digest].path).name}")
        else:
            fit[result.digest] = result
    if findings and unfit == "fail":
        raise PhotographError("\n".join(findings))
    if not fit:
        raise PhotographError("\n".join([*findings, f"{root}: no photograph in it is fit"]))
    return Survey(photographs=tuple(fit.values()), findings=tuple(findings))


def load_rgb(photograph: Photograph) -> Pixels:
    """Pixels, uint8 [H, W, 3], upright. Raises PhotographError if the file has changed since it was surveyed."""
    try:
        rgb = _decode(Path(photograph.path), minimum_side=1)
    except Exception as error:
        raise PhotographError(f"{photograph.path}: {_one_line(error)}") from error
    if isinstance(rgb, str):
        raise PhotographError(f"{photograph.path}: {rgb}")
    if _digest(rgb) != photograph.digest:
        raise PhotographError(f"{photograph.path}: its pixels changed since the photographs were surveyed")
    return rgb


def _examine(file: Path, minimum_side: int) -> Photograph | str:
    # Decoders get arbitrary bytes here and raise nearly anything (OSError, SyntaxError, struct.error, zlib.error, a
    # decompression-bomb warning turned error). Any error becomes the file's reason.
    try:
        rgb = _decode(file, minimum_side)
    except Exception as error:
        return f"cannot be decoded ({_one_line(error)})"
    if isinstance(rgb, str):
        return rgb
    return Photograph(path=str(file), digest=_digest(rgb), width=rgb.shape[1], height=rgb.shape[0])


def _decode(file: Path, minimum_side: int) -> Pixels | str:
    """Upright RGB pixels, or why the picture is unfit."""
    if file.stat().st_size == 0:
        return "the file is empty"
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        return f"not an image ({', '.join(FORMATS)})"
    with image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            return f"{image.width}x{image.height} pixels exceed the limit of {limit} (a decompression bomb?)"
        if min(image.size) < minimum_side:
            return f"{image.width}x{image.height} pixels; both sides need at least {minimum_side}"
        # A camera's MPO is a JPEG followed by further views: its first picture is the photograph.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            return f"{getattr(image, 'n_frames', 1)} frames; a photograph has one"
        if _deep(image):
            return "16 bits a channel or more; convert it to 8"
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            if image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                return "transparent pixels; flatten it on a background"
        elif image.mode not in CONVERTED:
            return f"{image.mode} colours; convert it to RGB"
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits a channel: for RGB only the decoder's arguments tell, Pillow drops the rest."""
    if image.mode.startswith(("I", "F")):
        return True
    for decoder, _, _, arguments in getattr(image, "tile", ()):
        if ";16" in str(arguments):
            return True
        if decoder.startswith("ppm") and isinstance(arguments, tuple) and arguments[-1] > 255:  # the highest value
            return True
    return False


def _digest(rgb: Pixels) -> str:
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
