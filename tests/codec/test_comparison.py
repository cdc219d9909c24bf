"""BD-rates of codecs on the same photographs: of the mean curve, and the mean of the photographs' own."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from lic_codec.comparison import compare
from lic_codec.curves import Curve

CURVE = ((0.1, 27.0), (0.2, 29.0), (0.4, 31.5), (0.8, 34.0), (1.6, 37.0))
VTM = Curve(name="VTM", points=CURVE, file="vtm.json")


def cheaper(factor: float) -> tuple[tuple[float, float], ...]:
    return tuple((factor * rate, quality) for rate, quality in CURVE)


def test_a_comparison_has_the_figures_of_both_interpolations() -> None:
    compared = compare(Curve(name="N16", points=cheaper(0.9)), VTM, "mse")
    assert compared.to_json() == {
        "codec": "N16",
        "against": "VTM",
        "file": "vtm.json",
        "distortion": "mse",
        "pct": pytest.approx(-10.0),
        "akima_pct": pytest.approx(-10.0),
        "overlap": 1.0,
        "interval_db": (27.0, 37.0),
        "line": "BD-rate of N16 against VTM: -10.00 % (pchip; akima -10.00 %; 27.00 to 37.00 dB, overlap 1.00)",
    }


def test_without_a_bd_rate_there_is_a_reason() -> None:
    few = compare(Curve(name="N16", points=CURVE[:3]), VTM, "mse")
    assert few.pct is None and few.reason == "too-few-points: test: 3 points, 4 needed"
    assert few.line == f"BD-rate of N16 against VTM: none, {few.reason}"
    above = Curve(name="N16", points=tuple((rate, quality + 3) for rate, quality in CURVE))  # 0.7 of it
    assert compare(above, VTM, "mse").reason == (
        "little-overlap: 0.70 of the test curve is compared, 0.75 wanted; "
        "anchor 27.00 to 37.00 dB, test 30.00 to 40.00 dB"
    )


def test_the_mean_of_photographs_is_of_those_that_have_a_bd_rate() -> None:
    anchor = Curve(name="JPEG", points=CURVE, of_photograph=dict.fromkeys(("aa", "bb", "cc"), CURVE))
    own = Curve(
        name="N16", points=cheaper(0.8), of_photograph={"aa": cheaper(0.9), "bb": cheaper(0.7), "cc": CURVE[:3]}
    )
    compared = compare(own, anchor, "mse")
    assert compared.pct == pytest.approx(-20.0)
    assert compared.of_photographs is not None
    assert asdict(compared.of_photographs) == pytest.approx(
        {"mean_pct": -20.0, "least_pct": -30.0, "most_pct": -10.0, "valid": 2, "of": 3}
    )
    assert compared.line.endswith("overlap 1.00; mean of 2 of 3 photographs -20.00 %)")
