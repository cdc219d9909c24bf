"""Classical codecs, measured on the photographs that ours are measured on."""

import io

import numpy as np
import pytest
from PIL import Image

from orchestrator.evaluation.classical import CODECS, measure_codec
from orchestrator.evaluation.metric import psnr_db


@pytest.mark.parametrize("name", [*CODECS])
def test_a_codecs_curve_is_of_its_own_bytes(name: str) -> None:
    """More bits and a better picture at each quality; figures that follow from the bytes alone."""
    codec = CODECS[name]
    steps = np.linspace(0, 9, 96)
    waves = np.sin(np.add.outer(steps, steps**1.5))[..., None] * [90, 70, 50]
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    rgb = (128 + waves + noise).clip(0, 255).astype(np.uint8)
    rows = measure_codec(codec, [("a.png", rgb)])
    assert [row.rate_point for row in rows] == [*codec.qualities] and {row.photograph for row in rows} == {"a.png"}
    assert [row.bpp for row in rows] == sorted(row.bpp for row in rows)
    assert [row.psnr_db for row in rows] == sorted(row.psnr_db for row in rows)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, codec.kind, quality=codec.qualities[2], **codec.options)
    decoded = np.asarray(Image.open(buffer).convert("RGB")).astype(float)
    assert (rows[2].bytes, rows[2].bpp) == (len(buffer.getvalue()), 8 * len(buffer.getvalue()) / 96**2)
    assert rows[2].psnr_db == pytest.approx(psnr_db(float(np.mean((decoded - rgb) ** 2)) / 255**2))
    assert f"qualities {codec.qualities[0]} to {codec.qualities[-1]}" in codec.described
