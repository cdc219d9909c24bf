from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.sweep.score import Anchor

CURVE = ((0.1, 26.0), (0.2, 28.0), (0.4, 30.0), (0.8, 32.0), (1.6, 34.0))
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013)
ANCHOR = Anchor(
    teacher="a",
    weights="0" * 64,
    rate_points=(0.1, 0, 0.5, 1, 2),
    curve=CURVE,
    lambdas=LAMBDAS,
    at_lambdas=tuple((bpp, 10 ** (-psnr / 10)) for bpp, psnr in CURVE[:4]),
)


def points(factor: float) -> list[dict[str, float]]:
    return [{"bpp": factor * bpp, "psnr_db": psnr, "mse": 10 ** (-psnr / 10)} for bpp, psnr in CURVE[:4]]


def test_a_tenth_fewer_bits_is_minus_ten_per_cent() -> None:
    scores = ANCHOR.score(points(0.9))
    assert scores["bd_rate_pct"] == pytest.approx(-10.0, abs=1e-9) and scores["bd_rate_reason"] is None
    assert scores["log_lagrangian_ratio"] < 0 and scores["anchor_digest"] == ANCHOR.digest
    assert ANCHOR.score(points(1.0))["log_lagrangian_ratio"] == pytest.approx(0.0, abs=1e-12)


def test_a_curve_that_is_not_valid_has_a_reason_and_still_a_rank() -> None:
    falling = [point | {"psnr_db": 30.0 - index} for index, point in enumerate(points(1.0))]
    scores = ANCHOR.score(falling)
    assert scores["bd_rate_pct"] is None and scores["bd_rate_reason"].startswith("psnr-not-rising")
    assert scores["log_lagrangian_ratio"] == pytest.approx(0.0, abs=1e-12)


def test_it_reads_back_equal_and_a_change_is_seen() -> None:
    data = json.loads(json.dumps(ANCHOR.to_json()))
    assert Anchor.from_json(data) == ANCHOR
    assert replace(ANCHOR, teacher="b").digest != ANCHOR.digest
    data["curve"][0][0] = 0.11
    with pytest.raises(ValueError, match=r"anchor\.json was changed"):
        Anchor.from_json(data)
