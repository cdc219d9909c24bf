"""Pictures as cameras and the web give them: what is kept, what is converted with a word, what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from lic_codec import pictures
from lic_codec.container import ChunkKind
from lic_codec.errors import CodecError
from lic_codec.pictures import encoded, read

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def content(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_plain_rgb_is_taken_as_it_is():
    picture = read(content(Image.fromarray(RGB)))
    assert np.array_equal(picture.rgb, RGB) and picture.kept == {} and picture.notes == ()


@pytest.mark.parametrize(
    ("mode", "note"),
    [("L", "grey: coded as RGB"), ("1", "black and white: coded as RGB"), ("P", "a palette: coded as RGB")],
)
def test_grey_and_palettes_become_rgb_with_a_word(mode, note):
    image = Image.fromarray(RGB).convert(mode)
    picture = read(content(image))
    assert picture.notes == (note,) and np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_rounded_with_a_word():
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    picture = read(content(Image.fromarray(values)))
    assert picture.notes[0] == "16 bits a channel: rounded to 8"
    assert np.array_equal(picture.rgb[..., 1], np.rint(values / 257))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_kept_without_loss(kind):
    alpha = np.random.default_rng(1).integers(0, 256, (20, 30, 1), dtype=np.uint8)
    rgba = np.concatenate((RGB, alpha), axis=2)
    picture = read(content(Image.fromarray(rgba)))
    assert np.array_equal(picture.rgb, RGB)
    back = np.asarray(Image.open(io.BytesIO(encoded(picture.rgb, picture.kept, kind))))
    assert np.array_equal(back[..., 3:], alpha)
    assert np.array_equal(back[..., :3][alpha[..., 0] > 0], RGB[alpha[..., 0] > 0])


def test_opaque_alpha_takes_no_bytes():
    opaque = np.concatenate((RGB, np.full((20, 30, 1), 255, np.uint8)), axis=2)
    assert read(content(Image.fromarray(opaque))).kept == {}


def test_orientation_and_profile_are_kept():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(content(Image.fromarray(RGB), "PNG", exif=exif, icc_profile=SRGB))
    assert np.array_equal(picture.rgb, RGB) and picture.kept[ChunkKind.ORIENTATION] == b"\6"
    back = Image.open(io.BytesIO(encoded(picture.rgb, picture.kept)))
    assert back.getexif()[0x0112] == 6 and back.info["icc_profile"] == SRGB
    turned = Image.open(io.BytesIO(encoded(picture.rgb, picture.kept, "BMP")))  # BMP has no place for it
    assert np.array_equal(np.asarray(turned), RGB[::-1].transpose(1, 0, 2))


def test_cmyk_is_converted_with_a_word():
    image = Image.fromarray(RGB).convert("CMYK")
    picture = read(content(image, "TIFF"))
    assert picture.notes == ("CMYK without a profile: converted to RGB",)
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))


def test_the_first_of_several_frames_is_coded_with_a_word():
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    picture = read(content(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert picture.notes == ("2 frames: the first one is coded",) and np.array_equal(picture.rgb, RGB)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"", "the picture: not a picture, or of a kind that is not read (AVIF, BMP"),
        (b"LD\x03" + bytes(40), "the picture: not a picture"),
        (content(Image.fromarray(RGB))[:200], "the picture: "),
        (content(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "F pixels are not coded"),
        ("no such file.png", "no such file.png: No such file or directory"),
    ],
)
def test_what_is_not_coded_is_one_line(source, line):
    with pytest.raises(CodecError) as raised:
        read(source)
    assert str(raised.value).startswith(line) and len(str(raised.value).splitlines()) == 1


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(CodecError, match="30x20 pixels are more than the limit of 599"):
        read(content(Image.fromarray(RGB)), largest=599)


@pytest.mark.parametrize(
    "kept",
    [
        {ChunkKind.ALPHA: b"no png"},
        {ChunkKind.ALPHA: content(Image.new("L", (3, 3)))},
        {ChunkKind.ICC_PROFILE: b"not deflated"},
    ],
)
def test_what_was_kept_and_is_damaged_is_one_line(kept):
    with pytest.raises(CodecError, match=r"^damaged stream: "):
        encoded(RGB, kept)


def test_files_are_written_whole(tmp_path):
    pictures.write(tmp_path / "a", b"one")
    pictures.write(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two" and len(list(tmp_path.iterdir())) == 1
