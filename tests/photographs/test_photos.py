"""Photographs: the fit ones, and each unfit one named in one line."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.photographs.crops import CropError, fit_for
from orchestrator.photographs.photos import Photograph, PhotographError, load_rgb
from orchestrator.photographs.survey import survey
from orchestrator.spec.sections import Crops

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


def tiff(path: Path, picture: Image.Image, *, bits: int, planar: bool, tile: int = 0) -> None:
    """A TIFF of RGB samples of so many bits, in planes or interleaved, in one strip or in tiles. Pillow writes none."""
    values = np.asarray(picture).astype(f"<u{bits // 8}") * (2**bits // 255)
    height, width, _ = values.shape
    planes = values.transpose(2, 0, 1)[..., None] if planar else values[None]
    step = tile or max(height, width)
    parts = []
    for plane in planes:
        for top in range(0, height, step):
            for left in range(0, width, step):
                part = plane[top : top + step, left : left + step]
                if tile:
                    part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)))
                parts.append(part.tobytes())
    shorts, longs = "H", "I"
    sides = [(322, longs, [tile]), (323, longs, [tile])] if tile else [(278, longs, [height])]
    offsets, counts = (324, 325) if tile else (273, 279)
    tags = [(256, longs, [width]), (257, longs, [height]), (258, shorts, [bits] * 3), (259, shorts, [1])]
    tags += [(262, shorts, [2]), (277, shorts, [3]), (284, shorts, [2 if planar else 1]), *sides]
    tags += [(offsets, longs, [0] * len(parts)), (counts, longs, [len(part) for part in parts])]
    head_bytes = 8 + 2 + 12 * len(tags) + 4
    extra_bytes = sum(size for _, kind, entries in tags if (size := struct.calcsize(f"<{len(entries)}{kind}")) > 4)
    starts = [head_bytes + extra_bytes + sum(map(len, parts[:index])) for index in range(len(parts))]
    rows, extra = [], b""
    for tag, kind, entries in sorted(tags):
        packed = struct.pack(f"<{len(entries)}{kind}", *(starts if tag == offsets else entries))
        if len(packed) > 4:
            packed, extra = struct.pack("<I", head_bytes + len(extra)), extra + packed
        rows.append(struct.pack("<HHI", tag, 3 if kind == shorts else 4, len(entries)) + packed.ljust(4, b"\0"))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(rows) + bytes(4)
    path.write_bytes(head + extra + b"".join(parts))


def twelve_bit_jpeg2000(path: Path, picture: Image.Image) -> None:
    """One whose header says 12 bits: Pillow reads these as 8-bit RGB and cannot write them."""
    picture.save(path)
    data = bytearray(path.read_bytes())
    depths = data.index(b"\xff\x4f\xff\x51") + 4 + 38
    data[depths : depths + 9 : 3] = bytes([11] * 3)
    path.write_bytes(data)


def ten_bit_avif(path: Path, picture: Image.Image) -> None:
    """One whose header says 10 bits: Pillow reads these as 8-bit RGB and cannot write them."""
    picture.save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"av1C") + 6] |= 0x40
    pixi = data.index(b"pixi") + 8
    data[pixi + 1 : pixi + 4] = bytes([10] * 3)
    path.write_bytes(data)


def ten_bit_avif_of_level_4_2(path: Path, picture: Image.Image) -> None:
    """One whose level, which is the byte before that of the bits, is a line feed."""
    ten_bit_avif(path, picture)
    data = bytearray(path.read_bytes())
    data[data.index(b"av1C") + 5] = 10
    path.write_bytes(data)


def half_transparent(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    picture.putalpha(128)
    return picture


def two_frames(path: Path, picture: Image.Image) -> None:
    picture.save(path, save_all=True, append_images=[picture.rotate(180)])


READ = "AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, QOI, TIFF, WEBP"
DEEP, CLEAR = "16 bits a channel; convert it to 8", "transparent pixels; flatten it on a background"
NO_IMAGE = f"not an image, or of a kind that is not read ({READ} are)"
UNFIT = {
    "truncated.png": (truncated, "cannot be decoded (OSError: "),
    "truncated.jpg": (truncated, "cannot be decoded (OSError: "),
    "truncated.webp": (truncated, "cannot be decoded (OSError: "),
    "cmyk.jpg": (lambda path, picture: picture.convert("CMYK").save(path), "CMYK colours; convert it to RGB"),
    "lab.tiff": (lambda path, picture: Image.new("LAB", picture.size).save(path), "LAB colours; convert it to RGB"),
    "alpha.png": (transparent, CLEAR),
    "alpha.webp": (lambda path, picture: transparent(path, picture), CLEAR),
    "palette.png": (transparent_palette, CLEAR),
    "grey16.png": (sixteen_bit_grey, DEEP),
    "rgb16.png": (sixteen_bit_png, DEEP),
    "rgb16.ppm": (sixteen_bit_rgb, DEEP),
    "float.tiff": (lambda path, picture: picture.convert("F").save(path), "32 bits a channel; convert it to 8"),
    "planar16.tif": (
        lambda path, picture: tiff(path, picture, bits=16, planar=True),
        DEEP,
    ),
    "interleaved16.tif": (
        lambda path, picture: tiff(path, picture, bits=16, planar=False),
        DEEP,
    ),
    "tiled16.tif": (
        lambda path, picture: tiff(path, picture, bits=16, planar=True, tile=128),
        DEEP,
    ),
    "planar32.tif": (lambda path, picture: tiff(path, picture, bits=32, planar=True), NO_IMAGE),
    "grey16.pgm": (sixteen_bit_grey, DEEP),
    "grey16.jp2": (sixteen_bit_grey, DEEP),
    "rgb12.jp2": (twelve_bit_jpeg2000, "12 bits a channel; convert it to 8"),
    "rgb10.avif": (ten_bit_avif, "10 bits a channel; convert it to 8"),
    "level.avif": (ten_bit_avif_of_level_4_2, "10 bits a channel; convert it to 8"),
    "float.pfm": (lambda path, picture: picture.convert("F").save(path), "32 bits a channel; convert it to 8"),
    "cmyk.tif": (lambda path, picture: picture.convert("CMYK").save(path), "CMYK colours; convert it to RGB"),
    "alpha.avif": (
        lambda path, picture: half_transparent(picture).save(path),
        CLEAR,
    ),
    "camera.heic": (
        lambda path, picture: path.write_bytes(b"\0\0\0\x18ftypheic"),
        f".heic is not read; convert it to one of {READ}",
    ),
    "dangling.jpg": (
        lambda path, picture: path.symlink_to("/nowhere/at-all.jpg"),
        "a link to /nowhere/at-all.jpg, which is not there",
    ),
    "circle.jpg": (lambda path, picture: path.symlink_to(path), "a link to {file}, which is not there"),
    "pipe.jpg": (lambda path, picture: os.mkfifo(path), "not a regular file"),
    "small.png": (
        lambda path, picture: picture.crop((0, 0, 127, 300)).save(path),
        "127x300 pixels; both sides need at least 128",
    ),
    "text.png": (lambda path, picture: path.write_text("not a picture"), NO_IMAGE),
    "svg.png": (lambda path, picture: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), NO_IMAGE),
    "animated.gif": (two_frames, "2 frames; a photograph has one"),
    "animated.png": (two_frames, "2 frames; a photograph has one"),
    "animated.webp": (two_frames, "2 frames; a photograph has one"),
    "empty.jpg": (lambda path, picture: path.write_bytes(b""), "the file is empty"),
    "copy.bmp": (lambda path, picture: picture.save(path), "the same picture as a-fit-one.png"),
}


# A reason's beginning -> what such files are counted as.
KINDS = {
    "cannot be decoded": "cannot be decoded",
    "CMYK": "CMYK colours",
    "LAB": "LAB colours",
    "transparent": "transparent",
    **dict.fromkeys(("10 ", "12 ", "16 ", "32 "), "more than 8 bits a channel"),
    "not an image": "not an image",
    ".heic": "*.heic",
    "a link to": "not there",
    "not a regular": "not a file",
    "127x300": "too small",
    "2 frames": "several frames",
    "the file is empty": "empty",
    "the same picture": "the same picture",
}


@pytest.mark.parametrize("name", UNFIT)
def test_each_unfit_photograph_is_one_line(tmp_path, picture, name):
    make, reason = UNFIT[name]
    picture.save(tmp_path / "a-fit-one.png")
    make(tmp_path / name, picture)
    with pytest.raises(PhotographError) as caught:
        survey(tmp_path, minimum_side=128)
    line, expected = str(caught.value), f"{tmp_path / name}: {reason.format(file=tmp_path / name)}"
    assert line == expected or (reason.startswith("cannot be decoded") and line.startswith(expected))
    assert "\n" not in line  # and a decoder's own words are not ours
    skipped = survey(tmp_path, minimum_side=128, unfit="skip")
    assert skipped.findings == (str(caught.value),)
    kind = next(kind for start, kind in KINDS.items() if reason.startswith(start))
    assert skipped.summary == f"{tmp_path}: 1 used; left out 1: {kind} 1"
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


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tile", [0, 128])
def test_a_tiff_of_8_bits_is_read_exactly(tmp_path, picture, planar, tile):
    tiff(tmp_path / "one.tif", picture, bits=8, planar=planar, tile=tile)
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    np.testing.assert_array_equal(load_rgb(photograph), np.asarray(picture))


def test_16_bits_a_pixel_are_not_16_a_channel(tmp_path, picture):
    """A BMP of 5, 6 and 5 bits."""
    red, green, blue = np.moveaxis(np.asarray(picture).astype(np.uint16)[::-1], 2, 0)
    rows = ((red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3)).astype("<u2")
    sizes = struct.pack("<IiiHHIIiiII", 40, picture.width, picture.height, 1, 16, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    head = b"BM" + struct.pack("<IHHI", 66 + rows.nbytes, 0, 0, 66)
    (tmp_path / "one.bmp").write_bytes(head + sizes + masks + rows.tobytes())
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    assert np.abs(load_rgb(photograph).astype(int) - np.asarray(picture)).max() < 8


@pytest.mark.parametrize(
    "name", ["one.avif", "one.jp2", "one.j2k", "one.jfif", "one.JFIF", "one.JPE", "one.qoi", "one.PnM"]
)
def test_what_pillow_reads_is_read(tmp_path, picture, name):
    formats = {".j2k": "JPEG2000", ".jpe": "JPEG", ".pnm": "PPM"}
    path = tmp_path / name
    picture.save(path, format=formats.get(path.suffix.lower()))
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    np.testing.assert_array_equal(load_rgb(photograph), np.asarray(Image.open(path).convert("RGB")))


def test_what_is_passed_over_is_counted(tmp_path, picture):
    picture.save(tmp_path / "UPPER.PNG")
    (tmp_path / ".hidden.png").write_bytes(b"")
    for name in ("notes.txt", "MORE.TXT", "LICENSE"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "linked").symlink_to(QUICKSTART)
    surveyed = survey(tmp_path, minimum_side=128)
    assert [Path(photograph.path).name for photograph in surveyed.photographs] == ["UPPER.PNG"]
    counted = "linked folders 1, *.txt 2, hidden 1, without an ending 1"
    assert surveyed.summary.startswith(f"{tmp_path}: 1 used; left out 5: ")
    assert sorted(surveyed.summary.rpartition(": ")[2].split(", ")) == sorted(counted.split(", "))


def test_a_folder_where_all_is_used_says_so(train_photographs):
    folder = QUICKSTART / "train"
    assert survey(folder, minimum_side=128).summary == f"{folder}: {len(train_photographs)} used"


def test_many_kinds_are_counted_together(tmp_path, picture):
    picture.save(tmp_path / "one.png")
    for index in range(20):
        (tmp_path / f"a.x{index}").write_text("")
    assert survey(tmp_path, minimum_side=128).summary.endswith(", others 12")


def test_findings_are_counted_by_kind(tmp_path, picture):
    picture.save(tmp_path / "one.png")
    for index in range(3):
        picture.crop((0, index, 100, 200)).save(tmp_path / f"small{index}.png")
    picture.save(tmp_path / "same.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    surveyed = survey(tmp_path, minimum_side=128, unfit="skip")
    assert surveyed.summary.startswith(f"{tmp_path}: 1 used; left out 5: too small 3, ")
    assert "the same picture 1" in surveyed.summary and "not there 1" in surveyed.summary


ODD_NAMES = [b"caf\xe9.png", b"two\nlines.png", b"bell\x07.png", b"\x1b[31mred.png", "\u2028.png".encode()]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_one_line_of_text(tmp_path, picture, name):
    """A name that is not UTF-8, that has line breaks or terminal codes in it."""
    path = tmp_path / os.fsdecode(name)
    picture.save(path)
    (photograph,) = survey(tmp_path, minimum_side=128).photographs
    np.testing.assert_array_equal(load_rgb(photograph), np.asarray(picture))
    with pytest.raises(CropError) as too_small:
        fit_for([photograph], Crops(size=1024))
    path.write_bytes(b"cut")
    with pytest.raises(PhotographError) as unfit:
        survey(tmp_path, minimum_side=128)
    with pytest.raises(PhotographError) as changed:
        load_rgb(photograph)
    for text in (str(too_small.value), str(unfit.value), str(changed.value)):
        assert text.isprintable()
        assert text.encode().decode() == text
        assert Path(text.partition(": ")[0]).parent == tmp_path


@pytest.mark.parametrize("name", ODD_NAMES)
def test_folders_of_odd_names_are_one_line_of_text(tmp_path, picture, name):
    folder = tmp_path / os.fsdecode(name)
    with pytest.raises(PhotographError) as missing:
        survey(folder, minimum_side=128)
    folder.mkdir()
    with pytest.raises(PhotographError) as empty:
        survey(folder, minimum_side=128)
    picture.save(folder / "one.png")
    for text in (str(missing.value), str(empty.value), survey(folder, minimum_side=128).summary):
        assert text.isprintable() and text.encode().decode() == text


def test_a_file_for_a_folder_is_one_line(tmp_path, picture):
    picture.save(tmp_path / "one.png")
    with pytest.raises(PhotographError, match=r"one\.png: cannot be read: Not a directory$"):
        survey(tmp_path / "one.png", minimum_side=128)


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
    for photograph in (*train_photographs, *validation_photographs):
        assert "/".join(Path(photograph.path).parts[-2:]) in credits
    assert credits.count("| [CC0 1.0]") + credits.count("| [Public Domain]") == 28


def test_a_photograph_that_was_deleted_is_one_line(train_photographs):
    gone = Photograph(path="/nowhere/x.png", digest=train_photographs[0].digest, width=1, height=1)
    with pytest.raises(PhotographError, match=r"^/nowhere/x\.png: "):
        load_rgb(gone)
