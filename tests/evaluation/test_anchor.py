from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.anchor import AnchorFile

CURVE = ((0.1, 26.0), (0.2, 28.0), (0.4, 30.0), (0.8, 32.0), (1.6, 34.0))
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013)
ANCHOR = Anchor(
    teacher="a",
    weights="0" * 64,
    rate_points=(0.1, 0, 0.5, 1, 2),
    curve=CURVE,
    lambdas=LAMBDAS,
    at_lambdas=tuple((bpp, 255**2 * 10 ** (-psnr / 10)) for bpp, psnr in CURVE[:4]),
)


def points(factor: float) -> list[CurvePoint]:
    return [
        CurvePoint(rate_point=index, bpp=factor * bpp, psnr_db=psnr, mse=10 ** (-psnr / 10))
        for index, (bpp, psnr) in enumerate(CURVE[:4])
    ]


def test_a_tenth_fewer_bits_is_minus_ten_per_cent() -> None:
    score = ANCHOR.score(points(0.9))
    costs = [(bpp, lmbda * d) for (bpp, d), lmbda in zip(ANCHOR.at_lambdas, LAMBDAS, strict=True)]
    ratio = sum(math.log((0.9 * bpp + cost) / (bpp + cost)) for bpp, cost in costs) / 4
    assert asdict(score) == {
        "bd_rate_pct": pytest.approx(-10.0, abs=1e-9),
        "bd_rate_reason": None,
        "overlap": 1.0,
        "interval_db": (26.0, 32.0),
        "log_lagrangian_ratio": pytest.approx(ratio),
        "anchor_digest": ANCHOR.digest,
    }
    assert ANCHOR.score(points(1.0)).log_lagrangian_ratio == pytest.approx(0.0, abs=1e-12)


def test_a_curve_that_is_not_valid_has_a_reason_and_still_a_rank() -> None:
    falling = [replace(point, psnr_db=30.0 - index) for index, point in enumerate(points(1.0))]
    score = ANCHOR.score(falling)
    assert asdict(score) == {
        "bd_rate_pct": None,
        "bd_rate_reason": "quality-not-rising: test: 30.000 dB at 0.1000 bpp, then 29.000 dB at 0.2000 bpp",
        "overlap": None,
        "interval_db": None,
        "log_lagrangian_ratio": pytest.approx(0.0, abs=1e-12),
        "anchor_digest": ANCHOR.digest,
    }


def test_a_sweep_for_ms_ssim_compares_ms_ssim() -> None:
    """All PSNR values are nonsense here, so that reading one would show."""
    rows = [
        CurvePoint(rate_point=index, bpp=bpp, psnr_db=0.0, mse=-1.0, ms_ssim=1 - 10 ** (-db / 10))
        for index, (bpp, db) in enumerate(CURVE[:4])
    ]
    lambdas = (2.4, 4.58, 8.73, 16.64)
    costs = tuple((row.bpp, 1 - (row.ms_ssim or 0.0)) for row in rows)
    anchor = replace(ANCHOR, distortion="ms-ssim", lambdas=lambdas, at_lambdas=costs)
    score = anchor.score([replace(row, bpp=0.9 * row.bpp) for row in rows])
    assert score.bd_rate_pct == pytest.approx(-10.0, abs=1e-9)
    ratios = [(0.9 * bpp + lmbda * d) / (bpp + lmbda * d) for (bpp, d), lmbda in zip(costs, lambdas, strict=True)]
    assert score.log_lagrangian_ratio == pytest.approx(sum(map(math.log, ratios)) / 4)


def test_it_reads_back_equal_and_a_change_is_seen() -> None:
    saved = AnchorFile(anchor=ANCHOR, digest=ANCHOR.digest, mean_log_lagrangian={"a": 0.0})
    assert AnchorFile.model_validate_json(saved.model_dump_json()).anchor == ANCHOR
    assert replace(ANCHOR, teacher="b").digest != ANCHOR.digest
    data = json.loads(saved.model_dump_json())
    data["anchor"]["curve"][0][0] = 0.11
    with pytest.raises(ValueError, match=r"the anchor was changed"):
        AnchorFile.model_validate_json(json.dumps(data))
