"""The bytes of one picture file: its upright RGB pixels, or why it is not fit to be a photograph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

Pixels = npt.NDArray[np.uint8]  # [H, W, 3], RGB

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
# Pictures of cameras and phones that Pillow does not read: one that is left out is named.
NOT_READ = (
    *(".heic", ".heif", ".hif", ".jxl", ".exr", ".psd"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
)
CONVERTED = ("RGB", "L", "1", "P", "YCbCr")  # modes with only one way to RGB


@dataclass(frozen=True)
class Unfit:
    """Why a file is not used."""

    kind: str  # under which such files are counted
    reason: str  # of this file


@cache
def endings() -> frozenset[str]:
    """Endings of the files that are read, in lower case, such as `.jfif`: Pillow's own for `FORMATS`."""
    formats = {*FORMATS, "MPO"}  # a camera's MPO is a JPEG with further views, and read as one
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


def decode(data: bytes, minimum_side: int) -> Pixels | Unfit:
    """Upright RGB pixels, or why the picture is unfit; see `survey`.

    Raises:
        Exception: nearly any (OSError, SyntaxError, struct.error, zlib.error, a decompression-bomb warning turned
            error), since decoders get arbitrary bytes here.
    """
    if not data:
        return Unfit("empty", "the file is empty")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        return Unfit("not an image", f"not an image, or of a kind that is not read ({', '.join(FORMATS)} are)")
    with image:
        return size_problem(*image.size, minimum_side) or _content_problem(data, image) or _rgb(image)


def size_problem(width: int, height: int, minimum_side: int) -> Unfit | None:
    """Why a picture of so many pixels is too large or too small; None: it is neither."""
    limit, size = Image.MAX_IMAGE_PIXELS, f"{width}x{height} pixels"
    if limit is not None and width * height > limit:
        return Unfit("too large", f"{size} exceed the limit of {limit} (a decompression bomb?)")
    if min(width, height) < minimum_side:
        return Unfit("too small", f"{size}; both sides need at least {minimum_side}")
    return None


def _content_problem(data: bytes, image: Image.Image) -> Unfit | None:
    # A camera's MPO is a JPEG followed by further views: its first picture is the photograph.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        return Unfit("several frames", f"{getattr(image, 'n_frames', 1)} frames; a photograph has one")
    bits = bits_a_channel(data, image)
    if bits > 8:
        return Unfit("more than 8 bits a channel", f"{bits} bits a channel; convert it to 8")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            return Unfit("transparent", "transparent pixels; flatten it on a background")
    elif image.mode not in CONVERTED:
        return Unfit(f"{image.mode} colours", f"{image.mode} colours; convert it to RGB")
    return None


def _rgb(image: Image.Image) -> Pixels:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def bits_a_channel(data: bytes, image: Image.Image) -> int:
    """Bits of a sample by the file's own word: Pillow gives 8 of 16 without saying so, or garbage.

    Args:
        data: of the file.
        image: the file, opened.
    """
    declared = _DECLARED.get(image.format or "", _eight)(data, image)
    deep = {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)
    return max(declared, deep) if declared <= 8 else declared


def _eight(data: bytes, image: Image.Image) -> int:
    """BMP, GIF, JPEG, QOI and WebP have no more, or Pillow refuses what has."""
    del data, image
    return 8


def _tiff_bits(data: bytes, image: Image.Image) -> int:
    del data
    assert isinstance(image, TiffImageFile)
    return int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))


def _png_bits(data: bytes, image: Image.Image) -> int:
    """The first chunk is IHDR: width and height, then the bit depth."""
    del image
    return data[24]


def _ppm_bits(data: bytes, image: Image.Image) -> int:
    """From the highest value, which Pillow's own decoders of this format get as their last argument."""
    del data
    assert isinstance(image, ImageFile)
    if image.mode == "I":  # grey of two bytes
        return 16
    decoders = [tile for tile in image.tile if tile.codec_name.startswith("ppm")]
    return max((tile.args[-1].bit_length() for tile in decoders if isinstance(tile.args, tuple)), default=8)


def _jpeg2000_bits(data: bytes, image: Image.Image) -> int:
    """The largest of the components, from the codestream's SIZ marker, which follows SOC at once."""
    del image
    siz = data.index(b"\xff\x4f\xff\x51") + 4
    components = int.from_bytes(data[siz + 36 : siz + 38], "big")
    return max((depth & 0x7F) + 1 for depth in data[siz + 38 : siz + 38 + 3 * components : 3])


def _avif_bits(data: bytes, image: Image.Image) -> int:
    """The largest of the coded images, from their AV1 configurations: a byte each of version, profile and flags."""
    del image
    meta = data.index(b"meta")
    boxes = data[meta : meta + int.from_bytes(data[meta - 4 : meta], "big")]
    flags = [found[1][0] for found in re.finditer(rb"av1C..(.)", boxes, re.DOTALL)]
    return max((12 if flag & 0x20 else 10 if flag & 0x40 else 8 for flag in flags), default=8)


_DECLARED = {
    "AVIF": _avif_bits,
    "JPEG2000": _jpeg2000_bits,
    "PNG": _png_bits,
    "PPM": _ppm_bits,
    "TIFF": _tiff_bits,
}
