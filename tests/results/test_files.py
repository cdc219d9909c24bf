"""Typed files of a run folder: written and read back equal; of another format or damaged, one line that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.evaluation.metric import CurvePoint, Measured
from orchestrator.results.account import ACCOUNT, FORECAST, Account, Forecasts
from orchestrator.results.anchor import ANCHOR, COMPLEXITY, AnchorFile, Complexities
from orchestrator.results.files import needed, read_file, write_file
from orchestrator.results.format import INSTEAD, FormatError, ResultFile
from orchestrator.results.front import CANDIDATES, CODED_ANCHOR, FRONT, Candidates, CodedCurve, CodingKey, Front
from orchestrator.results.interchange import INTERCHANGE, Exchange, Interchange
from orchestrator.results.shelf import SHELF, Pair, ShelfFile
from orchestrator.spec.loss import Loss, Phase
from orchestrator.store.store import Store
from tests.results.builders import byte_counts, coded_student, forecast_of, gang_seconds

STREAM = Measured(photograph="a.webp+0+8", rate_point=0, bpp=0.25, psnr_db=30.5, mse=1e-3, bytes=512, sha256="0" * 64)
POINT = CurvePoint(rate_point=0, bpp=0.1, psnr_db=26.0, mse=0.0025)
STUDENT = coded_student(points=(POINT,), validation=(STREAM,), interval_db=(26.0, 31.5), version="3")
ANCHOR_CURVE = Anchor(
    teacher="a",
    weights="0" * 64,
    rate_points=(0.1, 0, 0.5, 1),
    curve=((0.1, 26.0), (0.2, 28.0), (0.4, 30.0), (0.8, 32.0)),
    lambdas=(0.0018, 0.0035),
    at_lambdas=((0.1, 10.0), (0.2, 5.0)),
)
COST = Complexity(params=10, macs_per_pixel=2.0, encoder_macs_per_pixel=1.5, decoder_macs_per_pixel=0.5)
FILES: dict[str, ResultFile] = {
    ACCOUNT: Account(
        finished=True,
        continued=False,
        wall_s=12.5,
        phases_s={"trials": 10.0},
        gangs=gang_seconds(training_s=8.0, idle_s=2.0),
        images=96,
        bytes=byte_counts(features_stored=7),
        turnaround_median_s=None,
        turnaround_max_s=None,
    ),
    FORECAST: Forecasts(least=forecast_of(images=10.0), expected=forecast_of(images=20.0), most=forecast_of()),
    ANCHOR: AnchorFile(
        anchor=ANCHOR_CURVE, digest=ANCHOR_CURVE.digest, mean_log_lagrangian={"a": -0.5}, complexity=COST
    ),
    COMPLEXITY: Complexities(classes={"hyperprior-n8-m96": COST}),
    FRONT: Front(students=(STUDENT, coded_student(loss=Loss(phases=(Phase(share=1.0),))))),
    CANDIDATES: Candidates(students=(coded_student(bd_rate_pct=None, bd_rate_reason="no-overlap: far"),)),
    CODED_ANCHOR: CodedCurve(
        key=CodingKey(weights="0" * 64, rate_points=(0, 0.5), crops=(("digest", 0, 8, 128, 128),)),
        entropy_id="0" * 64,
        points=(POINT,),
        validation=(STREAM,),
    ),
    SHELF: ShelfFile(
        teacher="a",
        anchor_digest="0" * 64,
        weights={"01-encoder": "0" * 64},
        pairs=(
            Pair(
                encoder="01-encoder",
                decoder=None,
                encoder_N=8,
                decoder_N=64,
                params=10,
                macs_per_pixel=2.0,
                encoder_macs_per_pixel=1.5,
                decoder_macs_per_pixel=0.5,
                predicted_pct=12.5,
                bd_rate_pct=12.5,
                log_lagrangian_ratio=0.05,
                points=(POINT,),
            ),
        ),
    ),
    INTERCHANGE: Interchange(
        weights={"13-pair": "0" * 64},
        exchanges=(
            Exchange(encoder="13-pair", decoder="13-pair", entropy_id="0" * 64, points=(POINT,), bd_rate_pct=None),
        ),
    ),
}
# as versions before formats had numbers wrote them
OLD: dict[str, Any] = {
    ACCOUNT: {"finished": True, "continued": False, "wall_s": 1.0, "phases_s": {}, "gangs": {}, "images": 0},
    FORECAST: {"least": {}, "expected": {"images": 20.0}, "most": {}, "calibration": {}},
    ANCHOR: {"teacher": "a", "curve": [[0.1, 26.0]], "digest": "0", "mean_log_lagrangian": {"a": 0.0}},
    COMPLEXITY: {"hyperprior-n8-m96": {"params": 10, "macs_per_pixel": 2.0}},
    FRONT: [{"trial_id": "a", "bd_rate_pct": 1.0}],
    CANDIDATES: [],
    CODED_ANCHOR: {"key": {}, "points": [], "validation": []},
    SHELF: {"teacher": "a", "pairs": []},
    INTERCHANGE: {"weights": {}, "exchanges": []},
}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_is_read_back_equal_and_is_plain_json(tmp_path: Path, name: str) -> None:
    write_file(Store(tmp_path), name, FILES[name])
    assert needed(Store(tmp_path), name, type(FILES[name])) == FILES[name]
    text = (tmp_path / name).read_text()
    number = FILES[name].format
    assert (
        json.loads(text)["format"] == number and text.startswith(f'{{\n "format": {number},') and text.endswith("}\n")
    )


def test_whole_rate_points_stay_whole_and_a_loss_is_what_differs(tmp_path: Path) -> None:
    write_file(Store(tmp_path), FRONT, FILES[FRONT])
    first, second = json.loads((tmp_path / FRONT).read_text())["students"]
    assert repr(first["points"][0]["rate_point"]) == repr(first["validation"][0]["rate_point"]) == "0"
    assert first["loss"] == {} and [*second["loss"]] == ["phases"]


def test_a_file_that_is_not_there_is_none(tmp_path: Path, name: str) -> None:
    assert read_file(Store(tmp_path), name, type(FILES[name])) is None
    with pytest.raises(FileNotFoundError, match=name):
        needed(Store(tmp_path), name, type(FILES[name]))


def refused(folder: Path, name: str, content: str) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(FormatError) as caught:
        read_file(Store(folder), name, type(FILES[name]))
    line = str(caught.value)
    assert line.startswith(f"file://{folder}/{name}: ") and "\n" not in line
    return line


def test_a_file_of_before_formats_had_numbers_is_one_line(tmp_path: Path, name: str) -> None:
    line = refused(tmp_path, name, json.dumps(OLD[name]))
    assert (
        line
        == f"file://{tmp_path}/{name}: no format number, but this version reads format {FILES[name].format}: {INSTEAD}"
    )


def test_a_file_of_a_later_format_is_one_line(tmp_path: Path, name: str) -> None:
    line = refused(tmp_path, name, json.dumps(FILES[name].model_dump(mode="json") | {"format": 9, "more": 1}))
    assert line == f"file://{tmp_path}/{name}: format 9, but this version reads format {FILES[name].format}: {INSTEAD}"
    assert "go on with the version that wrote it" in INSTEAD and "give the sweep another name" in INSTEAD


def test_a_damaged_file_names_its_field(tmp_path: Path) -> None:
    content = FILES[ACCOUNT].model_dump(mode="json")
    gangs = {key: 0.0 for key in content["gangs"] if key != "idle_s"}
    for change, problem in (
        ({"images": "9"}, "images: Input should be a valid integer"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"gangs": gangs}, "gangs.idle_s: Field required"),
    ):
        line = refused(tmp_path, ACCOUNT, json.dumps(content | change))
        assert line == f"file://{tmp_path}/{ACCOUNT}: {problem}, in a file of format 1: {INSTEAD}"
    cut = refused(tmp_path, ACCOUNT, '{"format": 1,')
    reason = "Expecting property name enclosed in double quotes: line 1 column 14 (char 13)"
    assert cut == f"file://{tmp_path}/{ACCOUNT}: no JSON, or cut off: {reason}"
    deep = refused(tmp_path, ACCOUNT, "[" * 100_000)
    assert deep == f"file://{tmp_path}/{ACCOUNT}: no JSON, or cut off: nested too deep"


def test_an_anchor_that_was_changed_is_seen(tmp_path: Path) -> None:
    content = FILES[ANCHOR].model_dump(mode="json")
    content["anchor"]["curve"][0][0] = 0.11
    assert "the anchor was changed" in refused(tmp_path, ANCHOR, json.dumps(content))


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    point = CurvePoint(rate_point=0, bpp=float("nan"), psnr_db=1.0, mse=0.0)
    with pytest.raises(ValueError, match=r"finite|not JSON compliant"):
        write_file(Store(tmp_path), FRONT, Front(students=(coded_student(points=(point,)),)))
    stream = Measured(photograph="a", rate_point=0, bpp=float("inf"), psnr_db=1.0, mse=0.0)
    with pytest.raises(ValueError, match=r"finite|not JSON compliant"):
        write_file(Store(tmp_path), FRONT, Front(students=(coded_student(validation=(stream,)),)))
    assert Store(tmp_path).list() == []
