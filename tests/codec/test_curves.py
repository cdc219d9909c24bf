"""Curves: what a file has to hold, of which photographs it is, and each refusal as its one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lic_codec.curves import Curve, Distortion
from lic_codec.errors import CurveError
from lic_codec.metrics import ms_ssim_db
from lic_codec.sets import KODAK, set_of

CURVE = ((0.1, 27.0), (0.2, 29.0), (0.4, 31.5), (0.8, 34.0), (1.6, 37.0))
RATES, QUALITIES = (list(column) for column in zip(*CURVE, strict=True))
RESULTS = {"bpp": RATES, "psnr-rgb": QUALITIES, "ms-ssim-rgb": [0.9, 0.93, 0.95, 0.97, 0.99]}
NO_CURVE = "no curve with results.bpp and results.psnr-rgb of one length"


def written(folder: Path, document: Any) -> Path:
    path = folder / "a curve.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return path


def test_a_curve_is_named_by_its_document_or_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, {"name": "VTM\n19", "results": RESULTS})
    assert Curve.read(path, "mse") == Curve(name="VTM\\n19", file="a curve.json", points=CURVE)
    similar = tuple(zip(RATES, map(ms_ssim_db, RESULTS["ms-ssim-rgb"]), strict=True))
    assert Curve.read(path, "ms-ssim").points == similar
    assert Curve.read(written(tmp_path, {"results": RESULTS}), "mse").name == "a curve"


def test_a_file_that_begins_with_a_mark_is_read(tmp_path: Path) -> None:
    document = json.dumps({"results": RESULTS})
    assert Curve.read(written(tmp_path, document.encode("utf-8-sig"))).points == CURVE


@pytest.mark.parametrize(
    ("document", "distortion", "line"),
    [
        (b"\xff\xfe{", "mse", "it is not UTF-8 text; UTF-16 has to be converted"),
        (b"[" * 100_000, "mse", "no JSON: nested too deep"),
        (b"{", "mse", "no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ([1], "mse", "not an object with results"),
        ({}, "mse", NO_CURVE),
        ({"results": {"bpp": RATES}}, "mse", NO_CURVE),
        ({"results": 3}, "mse", NO_CURVE),
        (
            {"results": RESULTS | {"bpp": RATES[:4]}},
            "mse",
            f"{NO_CURVE}: zip() argument 2 is longer than argument 1",
        ),
        (
            {"results": RESULTS | {"psnr-rgb": ["30", *QUALITIES[1:]]}},
            "mse",
            f"{NO_CURVE}: bpp and psnr-rgb: (0.1, '30') is not a pair of numbers",
        ),
        (
            {"results": RESULTS | {"ms-ssim-rgb": [0.9, 0.93, 0.95, 0.97, 20.5]}},
            "ms-ssim",
            "results.ms-ssim-rgb: 20.5 is no MS-SSIM, which is 0 to 1 and not in dB",
        ),
        ({"results": RESULTS, "name": ["a"]}, "mse", "name: ['a'] is not allowed: text"),
        (
            {"results": {"bpp": RATES[:3], "psnr-rgb": QUALITIES[:3]}},
            "mse",
            "no curve to compare with: results.bpp and results.psnr-rgb: 3 points, 4 needed",
        ),
    ],
)
def test_a_file_without_a_curve_is_one_line(tmp_path: Path, document: Any, distortion: Distortion, line: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(CurveError) as raised:
        Curve.read(path, distortion)
    assert str(raised.value) == f"{path}: {line}"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone.json", "No such file or directory")):
        with pytest.raises(CurveError) as raised:
            Curve.read(path, "mse")
        assert str(raised.value) == f"{path}: {reason}"


def row(digest: str, rate: float, quality: float) -> dict[str, Any]:
    return {"digest": digest, "bpp": rate, "psnr_db": quality}


def test_a_curve_measured_here_is_of_the_photographs_of_its_rows(tmp_path: Path) -> None:
    rows = [row(digest, rate, quality) for digest in ("aa", "bb") for rate, quality in CURVE]
    curve = Curve.read(written(tmp_path, {"results": RESULTS, "photographs": rows, "photograph_set": None}))
    assert curve.of_photograph == {"aa": CURVE, "bb": CURVE}
    curve.check_photographs({"aa", "bb"})
    with pytest.raises(CurveError) as raised:
        curve.check_photographs({"aa", "cc", "dd"})
    assert str(raised.value) == (
        "a curve.json: not compared: it is of 2 photographs, 1 of which are among the folder's 3"
    )


def test_a_row_without_its_figures_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, {"results": RESULTS, "photographs": [{"digest": "aa", "bpp": 1}]})
    with pytest.raises(CurveError, match="photographs: each row needs digest, bpp and psnr_db"):
        Curve.read(path)


def test_a_published_curve_is_compared_on_its_own_set_alone(tmp_path: Path) -> None:
    named = Curve.read(written(tmp_path, {"results": RESULTS, "meta": {"dataset": "Kodak"}}))
    named.check_photographs(KODAK)
    unnamed = written(tmp_path, {"results": RESULTS})
    Curve.read(unnamed, published_on="kodak").check_photographs(KODAK)
    other = Curve.read(written(tmp_path, {"results": RESULTS, "meta": {"dataset": "tecnick"}}))
    some = set(list(KODAK)[:23])
    for curve, digests, reason in (
        (named, some, "it is of kodak, 24 photographs, 23 of which are among the folder's 23"),
        (named, KODAK | {"aa"}, "it is of kodak, 24 photographs, 24 of which are among the folder's 25"),
        (
            Curve(name="VTM", points=CURVE, file="vtm.json"),
            KODAK,
            "it does not say which photographs it is of; "
            "if they are those of a standard set, name it: --published-on kodak",
        ),
        (other, KODAK, "it is of tecnick, whose photographs are not known here (kodak)"),
    ):
        with pytest.raises(CurveError) as raised:
            curve.check_photographs(digests)
        assert str(raised.value) == f"{curve.file}: not compared: {reason}"


def test_a_set_is_all_of_its_photographs_and_nothing_else() -> None:
    assert len(KODAK) == 24 and set_of(KODAK) == "kodak"
    assert set_of(KODAK | {"aa"}) is None and set_of(set(list(KODAK)[1:])) is None


def test_the_set_that_a_file_names_has_to_be_text(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match=r"the name of its set of photographs is no text: \[1\]"):
        Curve.read(written(tmp_path, {"results": RESULTS, "meta": {"dataset": [1]}}))
