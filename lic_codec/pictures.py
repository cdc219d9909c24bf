"""Picture files to pixels and back: what is kept beside the pixels, and what is converted, with a word.

Kept: transparency, the ICC profile and EXIF's orientation. Converted to 8 bits of red, green and blue: grey, palettes,
16 bits a channel, CMYK and other colour spaces.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from lic_codec.codec import LARGEST_PHOTOGRAPH, Rgb
from lic_codec.container import ChunkKind
from lic_codec.errors import CodecError

READ = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
WRITTEN = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM"}
LARGEST_PROFILE = 1 << 24  # bytes, inflated


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture's pixels, and what belongs to them.

    Attributes:
        rgb: uint8 [H, W, 3], as stored: not turned by its orientation.
        kept: what a stream keeps beside the pixels.
        notes: what was converted, in words.
    """

    rgb: Rgb
    kept: Mapping[ChunkKind, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(source: str | os.PathLike[str] | bytes, largest: int = LARGEST_PHOTOGRAPH) -> Picture:
    """A picture file, or its content.

    Args:
        source: a path, or bytes.
        largest: pixels; a picture of more is refused.

    Raises:
        CodecError: no picture that is read, or a damaged one.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of files with oddities that it can read; its bomb limit is ours
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            with Image.open(io.BytesIO(content), formats=READ) as image:
                if image.width * image.height > largest:
                    size = f"{image.width}x{image.height}"
                    raise CodecError(f"{name}: {size} pixels are more than the limit of {largest}")
                return _picture(image, content)
    except CodecError:
        raise
    except UnidentifiedImageError:
        raise CodecError(f"{name}: not a picture, or of a kind that is not read ({', '.join(READ)} are)") from None
    except OSError as error:
        raise CodecError(f"{name}: {error.strerror or error}") from None
    except Exception as error:  # decoders raise nearly anything for arbitrary bytes
        raise CodecError(f"{name}: cannot be read: {error}") from None


def _picture(image: Image.Image, content: bytes) -> Picture:
    notes: list[str] = []
    kept: dict[ChunkKind, bytes] = {}
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{getattr(image, 'n_frames', 1)} frames: the first one is coded")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        kept[ChunkKind.ORIENTATION] = bytes([orientation])
    profile = image.info.get("icc_profile")
    image.load()
    if _is_deep(image, content):
        notes.append("16 bits a channel: rounded to 8")
    if image.mode.startswith("I"):  # grey of 16 bits
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode not in ("RGBA", "RGB"):
            notes.append(f"{image.mode}: coded as RGB, its transparency kept")
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() != (255, 255):
            kept[ChunkKind.ALPHA] = _png(alpha)
        image = Image.fromarray(np.ascontiguousarray(np.asarray(rgba)[..., :3]))
    elif image.mode == "RGB":
        pass
    elif image.mode in ("L", "1", "P", "YCbCr"):
        notes.append(f"{_NAMES[image.mode]}: coded as RGB")
        profile = profile if image.mode in ("P", "YCbCr") else None  # a grey profile is none of RGB
        image = image.convert("RGB")
    elif image.mode in ("CMYK", "LAB"):
        image, how = _converted(image, profile)
        notes.append(how)
        profile = None
    else:
        raise CodecError(f"{image.mode} pixels are not coded; convert it to 8-bit RGB")
    if profile:
        kept[ChunkKind.ICC_PROFILE] = zlib.compress(profile, 9)
    return Picture(rgb=np.asarray(image), kept=kept, notes=tuple(notes))


_NAMES = {"L": "grey", "1": "black and white", "P": "a palette", "YCbCr": "YCbCr"}


def _converted(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """To sRGB, by the picture's own profile where it has one."""
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    else:
        return image.convert("RGB"), "CMYK without a profile: converted to RGB"
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted, f"{image.mode}: converted to sRGB by its profile"


def _is_deep(image: Image.Image, content: bytes) -> bool:
    """Whether a sample has more than 8 bits; Pillow reads 16-bit colours as 8 without saying so."""
    if image.format == "PNG":
        return content[24] > 8
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return int(max(bits)) > 8
    return image.mode.startswith("I")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def restored(rgb: Rgb, kept: Mapping[ChunkKind, bytes]) -> tuple[Image.Image, bytes | None, int]:
    """A decoded picture with its transparency; its ICC profile; its orientation, 1 to 8.

    Raises:
        CodecError: what was kept is damaged.
    """
    image = Image.fromarray(rgb)
    try:
        if ChunkKind.ALPHA in kept:
            with Image.open(io.BytesIO(kept[ChunkKind.ALPHA]), formats=("PNG",)) as alpha:
                if alpha.size != image.size or alpha.mode not in ("L", "1"):
                    raise CodecError("damaged stream: a transparency of another size")
                image.putalpha(alpha.convert("L"))
        profile = None
        if ChunkKind.ICC_PROFILE in kept:
            inflater = zlib.decompressobj()
            profile = inflater.decompress(kept[ChunkKind.ICC_PROFILE], LARGEST_PROFILE)
            if inflater.unconsumed_tail:
                raise CodecError("damaged stream: an ICC profile that is too large")
    except CodecError:
        raise
    except Exception as error:  # arbitrary bytes again
        raise CodecError(f"damaged stream: {error}") from None
    (orientation,) = kept.get(ChunkKind.ORIENTATION, b"\1")[:1] or b"\1"
    return image, profile, orientation if orientation in range(1, 9) else 1


def encoded(rgb: Rgb, kept: Mapping[ChunkKind, bytes], kind: str = "PNG") -> bytes:
    """A picture file's content, with what was kept. WebP is written without loss.

    Raises:
        CodecError: what was kept is damaged.
    """
    image, profile, orientation = restored(rgb, kept)
    if kind in ("BMP", "PPM"):  # they hold neither profile nor orientation nor transparency
        image = turned(image, orientation).convert("RGB")
        options: dict[str, object] = {}
    else:
        options = {"icc_profile": profile} if profile else {}
        if orientation != 1:
            options["exif"] = _oriented(image, orientation).getexif()
    if kind == "WEBP":
        options["lossless"] = True
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """A picture upright, by EXIF's number."""
    return ImageOps.exif_transpose(_oriented(image, orientation))


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file; a reader sees the whole file or none. Raises OSError."""
    path = Path(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
