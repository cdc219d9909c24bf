"""Numbers of any library: whole ones are rate points, real ones gains, and whatever else comes is one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bitstream import CodecError, CodingLadder, encode_image, prepare_for_coding
from models.ladder import RateLadder
from models.plain_number import plain_number
from orchestrator.evaluation.bd_rate import BDRate, InvalidCurve, bd_rate, log_lagrangian_ratio
from orchestrator.evaluation.front import fronts
from orchestrator.spec.strict_yaml import parse, write
from tests.properties.values import JSON_NUMBERS, NO_NUMBER, NUMPY_REAL, NUMPY_WHOLE, is_one_line

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)
ANY = NUMPY_WHOLE | NUMPY_REAL | NO_NUMBER | JSON_NUMBERS


@pytest.fixture(scope="module")
def ladder() -> RateLadder:
    return RateLadder(family="hyperprior", N=4, M=4, lambdas=LAMBDAS)


@pytest.fixture(scope="module")
def coding(ladder: RateLadder) -> CodingLadder:
    return prepare_for_coding(ladder)


@given(NUMPY_WHOLE)
def test_a_whole_number_becomes_an_int(value: Any) -> None:
    assert type(plain_number(value)) is int and plain_number(value) == int(value)


@given(NUMPY_REAL)
def test_a_real_number_becomes_a_float(value: Any) -> None:
    try:
        plain = plain_number(value)
    except ValueError as error:
        assert is_one_line(str(error))
        return
    assert type(plain) is float and (plain == float(value) or math.isnan(plain))


@given(NO_NUMBER)
def test_what_is_no_number_is_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a number") as raised:
        plain_number(value)
    assert is_one_line(str(raised.value))


@given(value=ANY)
def test_a_rate_point_is_an_index_a_gain_or_one_line(ladder: RateLadder, coding: CodingLadder, value: Any) -> None:
    import numpy as np

    try:
        point = ladder.rate_point(value)
    except ValueError as error:
        assert is_one_line(str(error))
        with pytest.raises(CodecError) as raised:
            encode_image(coding, np.zeros((1, 1, 3), np.uint8), value)
        assert is_one_line(str(raised.value))
        return
    assert 0 <= point < len(LAMBDAS) if type(point) is int else 0 < point < math.inf


def _refused_in_one_line(call: Callable[[], object]) -> object:
    """What the call returns; None if it raised ValueError, whose line is looked at."""
    try:
        return call()
    except ValueError as error:
        assert is_one_line(str(error))
        return None


@given(st.lists(st.tuples(ANY, ANY) | ANY, max_size=6), st.lists(st.tuples(NUMPY_REAL, NUMPY_REAL), max_size=6))
def test_a_bd_rate_is_a_figure_a_reason_or_one_line(anchor: list[Any], test: list[Any]) -> None:
    for result in (
        _refused_in_one_line(lambda: bd_rate(anchor, test)),
        _refused_in_one_line(lambda: bd_rate(test, test)),
    ):
        assert result is None or isinstance(result, InvalidCurve) or math.isfinite(getattr(result, "pct", math.nan))
    _refused_in_one_line(
        lambda: log_lagrangian_ratio(anchor, test, [point[0] for point in anchor if isinstance(point, tuple)])
    )


RISING = st.lists(st.floats(1e-3, 10.0), min_size=4, max_size=8, unique=True).map(sorted)


@given(RISING, st.floats(0.1, 10.0))
def test_a_curve_of_numpy_s_numbers_has_the_same_bd_rate(rates: list[float], factor: float) -> None:
    import numpy as np

    curve = [(rate, 20.0 + 2 * place) for place, rate in enumerate(rates)]
    scaled = [(rate * factor, quality) for rate, quality in curve]
    expected = bd_rate(curve, scaled)
    assert bd_rate(np.array(curve), np.array(scaled)) == expected
    assert not isinstance(expected, BDRate) or expected.pct == pytest.approx(100 * (factor - 1), rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(NUMPY_REAL, NUMPY_REAL, ANY), max_size=8))
def test_fronts_take_any_number(points: list[Any]) -> None:
    numbers = _refused_in_one_line(lambda: fronts(points))
    assert numbers is None or len(numbers) == len(points)  # type: ignore[arg-type]


@given(st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_written_is_read_back(number: float) -> None:
    read = parse(write([number]))
    assert read == [number] and type(read[0]) is type(number)
