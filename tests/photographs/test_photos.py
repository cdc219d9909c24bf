"""Photographs: the fit ones, and each unfit one named in one line."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.photographs.photos import Photograph, PhotographError, load_rgb, survey

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(QUICKSTART / "train" / "fruits.webp").convert("RGB")


def truncated(path: Path, picture: Image.Image) -> None:
    picture.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def transparent(path: Path, picture: Image.Image) -> None:
    rgba = picture.convert("RGBA")
    rgba.putpixel((5, 5), (1, 2, 3, 254))
    rgba.save(path)


def transparent_palette(path: Path, picture: Image.Image) -> None:
    palette = picture.quantize(16)
    palette.save(path, transparency=palette.getpixel((0, 0)))


def sixteen_bit_grey(path: Path, picture: Image.Image) -> None:
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)


def sixteen_bit_rgb(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    values = np.asarray(picture).astype(">u2") * 257
    path.write_bytes(b"P6 %d %d 65535\n" % (width, height) + values.tobytes())


def sixteen_bit_png(path: Path, picture: Image.Image) -> None:
    """Pillow reads these as 8-bit RGB and cannot write them."""
    values = np.asarray(picture).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", *picture.size, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def two_frames(path: Path, picture: Image.Image) -> None:
    picture.save(path, save_all=True, append_images=[picture.rotate(180)])


UNFIT = {
    "truncated.png": (truncated, "cannot be decoded"),
    "truncated.jpg": (truncated, "cannot be decoded"),
    "truncated.webp": (truncated, "cannot be decoded"),
    "cmyk.jpg": (lambda path, picture: picture.convert("CMYK").save(path), "CMYK colours; convert it to RGB"),
    "lab.tiff": (lambda path, picture: Image.new("LAB", picture.size).save(path), "LAB colours"),
    "alpha.png": (transparent, "transparent pixels; flatten it on a background"),
    "alpha.webp": (lambda path, picture: transparent(path, picture), "transparent pixels"),
    "palette.png": (transparent_palette, "transparent pixels"),
    "grey16.png": (sixteen_bit_grey, "16 bits a channel or more; convert it to 8"),
    "rgb16.png": (sixteen_bit_png, "16 bits a channel or more"),
    "rgb16.ppm": (sixteen_bit_rgb, "16 bits a channel or more"),
    "float.tiff": (lambda path, picture: picture.convert("F").save(path), "16 bits a channel or more"),
    "small.png": (
        lambda path, picture: picture.crop((0, 0, 127, 300)).save(path),
        "127x300 pixels; both sides need at least 128",
    ),
    "text.png": (lambda path, picture: path.write_text("not a picture"), "not an image"),
    "svg.png": (lambda path, picture: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    "animated.gif": (two_frames, "2 frames; a photograph has one"),
    "animated.png": (two_frames, "2 frames"),
    "animated.webp": (two_frames, "2 frames"),
    "empty.jpg": (lambda path, picture: path.write_bytes(b""), "the file is empty"),
    "copy.bmp": (lambda path, picture: picture.save(path), "the same picture as a-fit-one.png"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_each_unfit_photograph_is_one_line(tmp_path, picture, name):
    make, reason = UNFIT[name]
    picture.save(tmp_path / "a-fit-one.png")
    make(tmp_path / name, picture)
    with pytest.raises(PhotographError) as caught:
        survey(tmp_path, minimum_side=128)
    assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")
    assert "\n" not in str(caught.value)
    skipped = survey(tmp_path, minimum_side=128, unfit="skip")
    assert skipped.findings == (str(caught.value),)
    assert [Path(photograph.path).name for photograph in skipped.photographs] == ["a-fit-one.png"]


def test_all_unfit_ones_are_listed_at_once(tmp_path, picture):
    for name, (make, _) in UNFIT.items():
        make(tmp_path / name, picture)
    with pytest.raises(PhotographError) as caught:
        survey(tmp_path, minimum_side=128)
    fit = 1  # copy.bmp is the only one of its picture now
    assert len(str(caught.value).splitlines()) == len(UNFIT) - fit


@pytest.mark.parametrize(
    "convert",
    [
        lambda picture: picture.convert("L"),
        lambda picture: picture.convert("1"),
        lambda picture: picture.quantize(32),
        lambda picture: picture.convert("RGBA"),
        lambda picture: picture.convert("LA"),
    ],
    ids=["grey", "bilevel", "palette", "opaque alpha", "opaque grey alpha"],
)
def test_what_becomes_rgb_without_a_choice(tmp_path, picture, convert):
    converted = convert(picture)
    converted.save(tmp_path / "one.png")
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    np.testing.assert_array_equal(load_rgb(photograph), np.asarray(converted.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "one.png", exif=exif)
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    pixels = np.asarray(picture)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(load_rgb(photograph), upright)
    assert (photograph.height, photograph.width) == upright.shape[:2]


def test_the_digest_is_of_the_pixels(tmp_path, picture):
    for folder, name, options in (("a", "one.png", {}), ("b", "two.webp", {"lossless": True, "exact": True})):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / name, **options)
    one, two = (survey(tmp_path / folder, minimum_side=128).photographs[0] for folder in ("a", "b"))
    assert one.digest == two.digest
    changed = np.asarray(picture).copy()
    changed[7, 7, 0] ^= 1
    Image.fromarray(changed).save(tmp_path / "a" / "one.png")
    assert survey(tmp_path / "a", minimum_side=128).photographs[0].digest != one.digest
    with pytest.raises(PhotographError, match=r"one\.png: its pixels changed since"):
        load_rgb(one)


def test_a_shape_is_part_of_the_digest(tmp_path):
    Image.new("RGB", (128, 256)).save(tmp_path / "tall.png")
    Image.new("RGB", (256, 128)).save(tmp_path / "wide.png")
    assert len(survey(tmp_path, minimum_side=128).photographs) == 2


def test_train_and_validation_stay_apart(tmp_path, picture):
    picture.save(tmp_path / "renamed.png")
    validation = survey(tmp_path, minimum_side=128).photographs
    shutil.copytree(QUICKSTART / "train", tmp_path / "train")
    digests = {photograph.digest for photograph in validation}
    line = f"{tmp_path / 'train' / 'fruits.webp'}: the same picture is in the other folder"
    with pytest.raises(PhotographError) as caught:
        survey(tmp_path / "train", minimum_side=128, exclude=digests)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    skipped = survey(tmp_path / "train", minimum_side=128, exclude=digests, unfit="skip")
    assert len(skipped.findings) == 1 and digests.isdisjoint(photograph.digest for photograph in skipped.photographs)


def test_other_files_are_ignored(tmp_path, picture):
    picture.save(tmp_path / "UPPER.PNG")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert [Path(photograph.path).name for photograph in survey(tmp_path, minimum_side=128).photographs] == [
        "UPPER.PNG"
    ]


def test_folders_without_photographs_are_one_line(tmp_path):
    with pytest.raises(PhotographError, match="no photographs in it") as caught:
        survey(tmp_path, minimum_side=128)
    assert "\n" not in str(caught.value)
    with pytest.raises(PhotographError, match=r"nowhere: no such folder$"):
        survey(tmp_path / "nowhere", minimum_side=128)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(PhotographError, match="no photograph in it is fit"):
        survey(tmp_path, minimum_side=128, unfit="skip")


def test_decompression_bombs_are_not_decoded(tmp_path, picture, monkeypatch):
    picture.save(tmp_path / "one.png")
    for limit in (picture.width * picture.height - 1, 1000):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(PhotographError, match=r"one\.png: .*[Dd]ecompression ?[Bb]omb"):
            survey(tmp_path, minimum_side=128)


def test_the_quickstart_photographs_are_fit(train_photographs, validation_photographs):
    assert len(train_photographs) == 22 and len(validation_photographs) == 6
    assert {picture.digest for picture in train_photographs}.isdisjoint(
        picture.digest for picture in validation_photographs
    )
    files = [file for file in QUICKSTART.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 5_000_000
    credits = (QUICKSTART / "CREDITS.md").read_text()
    for photograph in train_photographs + validation_photographs:
        assert "/".join(Path(photograph.path).parts[-2:]) in credits
    assert credits.count("| [CC0 1.0]") + credits.count("| [Public Domain]") == 28


def test_a_photograph_that_was_deleted_is_one_line(train_photographs):
    gone = Photograph(path="/nowhere/x.png", digest=train_photographs[0].digest, width=1, height=1)
    with pytest.raises(PhotographError, match=r"^/nowhere/x\.png: "):
        load_rgb(gone)
