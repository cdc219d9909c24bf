"""What is measured for the report alone: crops at equal rate, and codecs to compare with."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.bitstream import Rgb, decode_image, encode_image, prepare_for_coding
from models.catalogue import SHIPPED
from models.families import Kind
from models.ladder import RateLadder
from models.weights import load_ladder, save_ladder
from orchestrator.evaluation.metric import Measured, psnr_db
from orchestrator.report.illustrate import PICTURE_SIDE, as_webp, chosen, codec_references, nearest_rate, scenes

LAMBDAS = (0.0018, 0.0067, 0.025, 0.05)


def ladder(kind: Kind = "variable-rate") -> RateLadder:
    torch.manual_seed(0)
    return RateLadder(family="hyperprior", N=8, M=12, lambdas=LAMBDAS, kind=kind)


@pytest.fixture(scope="module")
def rgb() -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def pixels(webp: str) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(webp))).convert("RGB"))


def test_a_rate_between_rate_points_is_met(rgb: Rgb) -> None:
    """By a gain; at the ladder's ends by the nearest rate point."""
    coding = prepare_for_coding(load_ladder(SHIPPED / "teacher-hyperprior.safetensors"))
    last = len(coding.ladder.lambdas) - 1
    low, high = (8 * len(encode_image(coding, rgb, place)) / (64 * 96) for place in (0, last))
    assert low < high
    wanted = low + 0.4 * (high - low)
    met = 8 * len(nearest_rate(coding, rgb, wanted)) / (64 * 96)
    assert met == pytest.approx(wanted, rel=0.02)
    assert nearest_rate(coding, rgb, low / 2) == encode_image(coding, rgb, 0)
    assert nearest_rate(coding, rgb, 2 * high) == encode_image(coding, rgb, last)


def test_a_ladder_of_fixed_lambdas_has_its_rate_points_alone(rgb: Rgb) -> None:
    coding = prepare_for_coding(ladder("fixed-lambda"))
    streams = [encode_image(coding, rgb, place) for place in range(4)]
    found = nearest_rate(coding, rgb, 8 * len(streams[1]) / (64 * 96))
    assert found in streams and len(found) == len(streams[1])


def test_a_picture_is_what_was_decoded(rgb: Rgb, tmp_path: Path) -> None:
    save_ladder(tmp_path / "a.safetensors", ladder())
    weights = (tmp_path / "a.safetensors").read_bytes()
    coding = prepare_for_coding(ladder())
    bpp = 8 * len(encode_image(coding, rgb, 2)) / (64 * 96)
    (scene,) = scenes([("a.png", rgb), ("b.png", rgb)], {"a.png": ("the most bits", bpp)}, {"small": weights})
    assert (scene.photograph, scene.why, scene.bpp) == ("a.png", "the most bits", bpp)
    assert np.array_equal(pixels(scene.original), rgb)
    (picture,) = scene.pictures
    decoded = decode_image(coding, nearest_rate(coding, rgb, bpp))
    assert np.array_equal(pixels(picture.webp), decoded) and picture.name == "small"
    error = np.mean((decoded.astype(float) - rgb) ** 2) / 255**2
    assert picture.psnr_db == pytest.approx(psnr_db(float(error)))
    assert picture.bpp == pytest.approx(bpp, rel=0.02)


def test_of_a_large_crop_the_middle_is_kept() -> None:
    large = np.random.default_rng(0).integers(0, 256, (PICTURE_SIDE + 40, PICTURE_SIDE + 80, 3), dtype=np.uint8)
    assert np.array_equal(pixels(as_webp(large)), large[20:-20, 40:-40])


def test_the_photographs_with_the_fewest_and_the_most_bits_are_chosen() -> None:
    rows = [
        Measured(photograph=name, rate_point=place, bpp=bpp * (1 + place), psnr_db=30.0, mse=0.001)
        for name, bpp in (("b", 0.4), ("a", 0.2), ("c", 0.9))
        for place in range(3)
    ]
    assert chosen(rows, 1) == {"a": ("the fewest bits", 0.4), "c": ("the most bits", 1.8)}
    assert [*chosen(rows[:3], 1)] == ["b"]
    assert chosen(rows, 7) == {}


def test_classical_codecs_have_curves_over_all_photographs(rgb: Rgb) -> None:
    found = codec_references([("a.png", rgb), ("b.png", rgb[:48])])
    assert [curve.name for curve in found] == ["JPEG", "WebP", "AVIF", "JPEG XL"] and {
        curve.kind for curve in found
    } == {"codec"}
    for curve in found:
        assert len(curve.validation) == 2 * len(curve.points)
        means = [np.mean([row.bpp for row in curve.validation if row.rate_point == p.rate_point]) for p in curve.points]
        assert means == pytest.approx([point.bpp for point in curve.points])
