"""Curve files: whatever is in one, it is a curve that can be compared, or one line before any work."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lic_codec.comparison import compare
from lic_codec.curves import COLUMNS, Curve, Distortion
from lic_codec.errors import CurveError
from tests.properties.values import JSON, ODD_TEXT, is_one_line

COLUMN = st.lists(st.floats() | st.integers() | JSON, max_size=6) | JSON
DOCUMENT = JSON | st.fixed_dictionaries(
    {"results": JSON | st.fixed_dictionaries({"bpp": COLUMN, **dict.fromkeys(COLUMNS.values(), COLUMN)})},
    optional={"name": JSON},
)
POINTS = st.lists(
    st.tuples(st.floats(1e-3, 20.0, allow_subnormal=False), st.floats(0.0, 60.0)), min_size=4, max_size=8
).map(sorted)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curves") / "curve.json"


def _read(file: Path, distortion: Distortion = "mse") -> Curve | None:
    """The curve; None if it was refused, in one line that names the file."""
    try:
        return Curve.read(file, distortion)
    except CurveError as error:
        assert is_one_line(str(error)) and str(error).startswith(f"{file}: ")
        return None


@given(
    data=st.binary()
    | ODD_TEXT.map(lambda text: text.encode("utf-16", "surrogatepass"))
    | st.integers(0, 10**5).map(lambda n: b"[" * n)
)
def test_any_bytes_are_one_line(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert _read(file) is None


@given(document=DOCUMENT, distortion=st.sampled_from([*COLUMNS]))
def test_any_json_is_a_curve_or_one_line(file: Path, document: Any, distortion: Distortion) -> None:
    file.write_text(json.dumps(document))
    published = _read(file, distortion)
    if published is not None:
        assert len(published.points) >= 4 and is_one_line(compare(published, published, distortion).line)


@given(points=POINTS, name=ODD_TEXT, encoding=st.sampled_from(["utf-8", "utf-8-sig"]))
def test_a_curve_compares_with_itself_or_is_refused(
    file: Path, points: list[tuple[float, float]], name: str, encoding: str
) -> None:
    rates, qualities = zip(*points, strict=True)
    document = {"name": name, "results": {"bpp": rates, "psnr-rgb": qualities}}
    file.write_text(json.dumps(document), encoding=encoding)
    published = _read(file)
    if published is None:  # it does not rise
        assert any(late[1] <= early[1] or late[0] <= early[0] for early, late in pairwise(points))
        return
    compared = compare(published, published, "mse")
    assert is_one_line(compared.line)
    assert compared.reason or compared.pct == pytest.approx(0, abs=1e-6)
