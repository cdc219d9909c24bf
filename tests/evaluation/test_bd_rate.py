"""BD-rate against exact values, against published curves, and every way in which a curve is invalid."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator

from orchestrator.evaluation.bd_rate import BDRate, InvalidCurve, bd_rate, log_lagrangian_ratio

PUBLISHED = Path(__file__).parents[3] / "shared/reference/kodak-rd"
CURVE = [(0.1, 27.0), (0.2, 29.0), (0.4, 31.5), (0.8, 34.0), (1.6, 37.0)]


def published(name: str) -> list[tuple[float, float]]:
    path = PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no published curve {path}")
    results = json.loads(path.read_text())["results"]
    return list(zip(results["bpp"], results["psnr-rgb"], strict=True))


@pytest.mark.parametrize("method", ["pchip", "akima"])
@pytest.mark.parametrize(("factor", "pct"), [(0.9, -10.0), (1.0, 0.0), (1.25, 25.0)])
def test_scaled_rates_are_exact(factor, pct, method):
    result = bd_rate(CURVE, [(rate * factor, psnr) for rate, psnr in CURVE], method=method)
    assert isinstance(result, BDRate)
    assert result.pct == pytest.approx(pct, abs=1e-9)
    assert result.overlap == 1.0
    assert result.interval_db == (27.0, 37.0)


def test_points_of_numpy_are_the_same():
    test = [(rate * 1.1, psnr) for rate, psnr in CURVE]
    assert bd_rate(np.array(CURVE), np.array(test)) == bd_rate(CURVE, test)
    lambdas = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = log_lagrangian_ratio(CURVE, test, [*map(float, lambdas)])
    assert log_lagrangian_ratio(np.array(CURVE), np.array(test, np.float64), lambdas) == expected
    with pytest.raises(ValueError, match=r"^test: \(None, 1\) is not a pair of numbers$"):
        bd_rate(CURVE, [(None, 1)])  # type: ignore[list-item]


def test_order_of_points_is_irrelevant():
    test = [(0.15, 28.0), (0.3, 30.0), (0.6, 33.0), (1.2, 36.5)]
    assert bd_rate(CURVE[::-1], [test[i] for i in (2, 0, 3, 1)]) == bd_rate(CURVE, test)


@pytest.mark.parametrize(
    ("anchor", "test"),
    [
        ("jpeg", "webp"),
        ("jpeg", "bmshj2018-hyperprior-vbr-ans"),
        ("vtm", "compressai-mbt2018-mean_mse_cpu"),
        ("webp", "av1"),
    ],
)
def test_published_curves_against_own_integration(anchor, test):
    a, t = published(anchor), published(test)
    low, high = max(a[0][1], t[0][1]), min(a[-1][1], t[-1][1])
    rates = [PchipInterpolator([psnr for _, psnr in curve], np.log([rate for rate, _ in curve])) for curve in (a, t)]
    knots = sorted({psnr for _, psnr in a + t if low < psnr < high})
    area, _ = quad(
        lambda psnr: float(rates[1](psnr) - rates[0](psnr)), low, high, points=knots, limit=200, epsabs=1e-11
    )
    result = bd_rate(a, t)
    assert isinstance(result, BDRate)
    assert result.pct == pytest.approx(100 * math.expm1(area / (high - low)), abs=1e-6)
    assert result.interval_db == (low, high)


def test_overlap_is_the_share_of_the_test_curve():
    # Intersection over union would be 0.5 here, but all of the test curve is compared.
    test = [(0.25, 29.5), (0.4, 31.0), (0.7, 33.0), (0.9, 34.5)]
    result = bd_rate(CURVE, test)
    assert isinstance(result, BDRate)
    assert result.overlap == 1.0
    shifted = bd_rate(CURVE, [(rate, psnr - 5.5) for rate, psnr in test])
    assert isinstance(shifted, InvalidCurve)
    assert shifted.reason == "little-overlap"
    allowed = bd_rate(CURVE, [(rate, psnr - 5.5) for rate, psnr in test], minimum_overlap=0.4 - 1e-9)
    assert isinstance(allowed, BDRate)
    assert allowed.overlap == pytest.approx(0.4)
    assert allowed.interval_db == (27.0, 29.0)


TEST = "anchor 27.00 to 37.00 dB, test"


@pytest.mark.parametrize(
    ("test", "line"),
    [
        (CURVE[:3], "too-few-points: test: 3 points, 4 needed"),
        ([], "too-few-points: test: 0 points, 4 needed"),
        ([*CURVE[:4], (math.nan, 40.0)], "not-finite: test: nan bpp, 40.0 dB"),
        ([*CURVE[:4], (3.0, math.inf)], "not-finite: test: 3.0 bpp, inf dB"),
        ([(0.0, 20.0), *CURVE], "rate-not-positive: test: 0.0 bpp"),
        ([(-0.1, 20.0), *CURVE], "rate-not-positive: test: -0.1 bpp"),
        (
            [(0.1, 27.0), (0.2, 29.0), (0.4, 28.9), (0.8, 34.0)],
            "quality-not-rising: test: 29.000 dB at 0.2000 bpp, then 28.900 dB at 0.4000 bpp",
        ),
        (
            [(0.1, 27.0), (0.2, 29.0), (0.4, 29.0), (0.8, 34.0)],
            "quality-not-rising: test: 29.000 dB at 0.2000 bpp, then 29.000 dB at 0.4000 bpp",
        ),
        (
            [(0.1, 27.0), (0.2, 29.0), (0.2, 30.0), (0.8, 34.0)],
            "quality-not-rising: test: 29.000 dB at 0.2000 bpp, then 30.000 dB at 0.2000 bpp",
        ),
        ([(rate, psnr + 20) for rate, psnr in CURVE], f"no-overlap: {TEST} 47.00 to 57.00 dB"),
        ([(rate, psnr + 10) for rate, psnr in CURVE], f"no-overlap: {TEST} 37.00 to 47.00 dB"),  # touching
        (
            [(rate, psnr + 6) for rate, psnr in CURVE],
            f"little-overlap: 0.40 of the test curve is compared, 0.5 wanted; {TEST} 33.00 to 43.00 dB",
        ),
    ],
)
def test_invalid_curves_have_reasons(test, line):
    result = bd_rate(CURVE, test)
    assert isinstance(result, InvalidCurve)
    assert str(result) == line
    backwards = bd_rate(test, CURVE)
    if result.reason != "little-overlap":
        assert isinstance(backwards, InvalidCurve)
        assert backwards.reason == result.reason
        assert backwards.detail == result.detail.replace("test: ", "anchor: ") or result.reason == "no-overlap"


def test_what_the_package_raises_is_a_reason(monkeypatch):
    def broken(*_, **__):
        raise AssertionError("two\nlines")

    monkeypatch.setattr("bjontegaard.bd_rate", broken)
    assert bd_rate(CURVE, CURVE) == InvalidCurve(reason="package", detail="AssertionError: two lines")
    monkeypatch.setattr("bjontegaard.bd_rate", lambda *_, **__: math.nan)
    assert bd_rate(CURVE, CURVE) == InvalidCurve(reason="package", detail="the interpolation gave nan")


def test_impossible_arguments_are_errors():
    with pytest.raises(ValueError, match=r"^method 'cubic' is not pchip or akima$"):
        bd_rate(CURVE, CURVE, method="cubic")  # type: ignore[arg-type] # what is refused
    with pytest.raises(ValueError, match=r"^minimum_overlap 1\.5 is not in 0\.\.1$"):
        bd_rate(CURVE, CURVE, minimum_overlap=1.5)


def test_log_lagrangian_ratio():
    anchor = [(0.2, 65.0), (0.5, 32.5)]
    lambdas = (0.0018, 0.0067)
    assert log_lagrangian_ratio(anchor, anchor, lambdas) == 0.0
    worse = [(2 * bpp, 2 * distortion) for bpp, distortion in anchor]
    assert log_lagrangian_ratio(anchor, worse, lambdas) == pytest.approx(math.log(2))
    one = [(0.3, 65.0), (0.5, 32.5)]
    cost = 0.0018 * 65
    assert log_lagrangian_ratio(anchor, one, lambdas) == pytest.approx(math.log((0.3 + cost) / (0.2 + cost)) / 2)


NO_COST = "at lambda 0.0018 have no positive finite cost"


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ([(0.2, 1e-3)], "2 anchor points, 1 test points, 2 lambdas: they must be equally many"),
        ([(math.nan, 1e-3), (0.5, 5e-4)], f"bpp nan, distortion 0.001 {NO_COST}"),
        ([(0.0, 0.0), (0.5, 5e-4)], f"bpp 0.0, distortion 0.0 {NO_COST}"),
        ([(-0.5, 0.25), (0.5, 5e-4)], f"bpp -0.5, distortion 0.25 {NO_COST}"),
    ],
)
def test_log_lagrangian_ratio_is_finite_or_an_error(test, line):
    with pytest.raises(ValueError) as raised:
        log_lagrangian_ratio([(0.2, 1e-3), (0.5, 5e-4)], test, (0.0018, 0.0067))
    assert str(raised.value) == line
    with pytest.raises(ValueError, match=r"^0 anchor points, 0 test points, 0 lambdas: they must be equally many$"):
        log_lagrangian_ratio([], [], ())
