"""Published curves: what a file has to hold, each refusal as its one line, and the words of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.families import Distortion
from orchestrator.evaluation.metric import ms_ssim_db
from orchestrator.evaluation.on_folder import CurveError, Published

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
    assert Published.read(path, "mse") == Published(name="VTM\\n19", file="a curve.json", curve=CURVE)
    similar = tuple(zip(RATES, map(ms_ssim_db, RESULTS["ms-ssim-rgb"]), strict=True))
    assert Published.read(path, "ms-ssim").curve == similar
    assert Published.read(written(tmp_path, {"results": RESULTS}), "mse").name == "a curve"


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
        Published.read(path, distortion)
    assert str(raised.value) == f"{path}: {line}"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone.json", "No such file or directory")):
        with pytest.raises(CurveError) as raised:
            Published.read(path, "mse")
        assert str(raised.value) == f"{path}: {reason}"


def test_a_comparison_has_the_figures_of_both_interpolations() -> None:
    published = Published(name="VTM", file="vtm.json", curve=CURVE)
    fewer = [(0.9 * rate, quality) for rate, quality in CURVE]
    assert published.compare(fewer) == {
        "against": "VTM",
        "file": "vtm.json",
        "pct": pytest.approx(-10.0),
        "akima_pct": pytest.approx(-10.0),
        "overlap": 1.0,
        "interval_db": (27.0, 37.0),
        "line": "BD-rate against VTM: -10.00 % (pchip; akima -10.00 %; 27.00 to 37.00 dB, overlap 1.00)",
    }
    assert published.compare(CURVE[:3]) == {
        "against": "VTM",
        "file": "vtm.json",
        "reason": "too-few-points: test: 3 points, 4 needed",
        "line": "BD-rate against VTM: none, too-few-points: test: 3 points, 4 needed",
    }
    above = [(rate, quality + 3) for rate, quality in CURVE]  # 0.7 of it, and figures to publish need 0.75
    assert published.compare(above)["line"] == (
        "BD-rate against VTM: none, little-overlap: 0.70 of the test curve is compared, 0.75 wanted; "
        "anchor 27.00 to 37.00 dB, test 30.00 to 40.00 dB"
    )
