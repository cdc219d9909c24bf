"""The report's tables of photographs, and crops for the eye."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.evaluation.bd_rate import BDRate, bd_rate
from orchestrator.evaluation.metric import CurvePoint, Measured
from orchestrator.report.page import render
from orchestrator.report.photographs import MOST_ROWS, photographs_section
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.results.front import CodedCurve, CodingKey
from orchestrator.results.pictures import Picture, Pictures, Scene
from orchestrator.results.references import Reference, References
from orchestrator.store.store import Store
from tests.report.conftest import Page, points, table

PHOTOGRAPHS = ("hard.png", "<easy>.png")


def rows(curves: dict[str, tuple[CurvePoint, ...]]) -> tuple[Measured, ...]:
    return tuple(
        Measured(photograph=name, rate_point=point.rate_point, bpp=point.bpp, psnr_db=point.psnr_db, mse=point.mse)
        for name, curve in curves.items()
        for point in curve
    )


@pytest.fixture
def run(run_folder: Path) -> RunFiles:
    """One student of the front and one codec, each coded on two photographs: 10 and 30 % more bits than the anchor."""
    found = read_run(Store(run_folder))
    key = CodingKey(weights="0" * 64, rate_points=(), crops=())
    anchor = CodedCurve(
        key=key, entropy_id="", points=points(0.0), validation=rows(dict.fromkeys(PHOTOGRAPHS, points(0.0)))
    )
    more = rows({"hard.png": points(30.0), "<easy>.png": points(10.0)})
    student = found.front[0].model_copy(update={"validation": more})
    codec = Reference(
        name="JPEG", kind="codec", made_by="a library", points=points(50.0), validation=rows({"hard.png": points(50.0)})
    )
    references = References(crops=(), curves=(codec,))
    return replace(found, anchor_coded=anchor, front=(student,), references=references)


def test_each_photograph_has_a_bd_rate_of_its_own(run: RunFiles) -> None:
    page = Page("".join(photographs_section(run)))
    found = {row["photograph"]: row for row in table(page, "photograph", "JPEG")}
    name = run.front[0].trial_id
    assert (found["hard.png"][name], found["<easy>.png"][name]) == ("+30.00", "+10.00")
    assert (found["hard.png"]["JPEG"], found["<easy>.png"]["JPEG"]) == ("+50.00", "")
    assert found["mean of those that have one"][name] == "+20.00"
    assert (found["from"][name], found["to"][name]) == ("+10.00", "+30.00")
    expected = bd_rate(run.metric.curve(points(0.0)), run.metric.curve(points(30.0)))
    assert isinstance(expected, BDRate) and expected.pct == pytest.approx(30.0)


def test_all_rows_are_there_the_lowest_rate_first(run: RunFiles) -> None:
    page = Page("".join(photographs_section(run)))
    found = table(page, "photograph", "rate 5")
    assert [(row["photograph"], row["codec"]) for row in found][:3] == [
        ("hard.png", "teacher-mean-scale"),
        ("hard.png", run.front[0].trial_id),
        ("hard.png", "JPEG"),
    ]
    first = points(30.0)[0]
    assert found[1]["rate 1"] == f"{first.bpp:.3f}, {first.psnr_db:.2f}"


def test_very_many_rows_are_cut_and_said_to_be(run: RunFiles) -> None:
    many = rows({f"{number}.png": points(0.0)[:1] for number in range(MOST_ROWS + 7)})
    assert run.anchor_coded is not None
    anchor = run.anchor_coded.model_copy(update={"validation": many})
    text = "".join(photographs_section(replace(run, anchor_coded=anchor, front=(), references=None)))
    assert "7 more rows are in coded/*.json." in text and text.count("<tr") == MOST_ROWS + 1


def test_nothing_coded_is_no_section(run_folder: Path) -> None:
    assert photographs_section(read_run(Store(run_folder))) == []


def test_crops_stand_side_by_side_with_rate_and_quality(run: RunFiles) -> None:
    scene = Scene(
        photograph="<easy>.png",
        why="the fewest bits",
        bpp=0.5,
        original="AAAA",
        pictures=(Picture(name='a"trial', bpp=0.4987, psnr_db=31.256, webp="BBBB"),),
    )
    text = "".join(photographs_section(replace(run, pictures=Pictures(weights={}, scenes=(scene,)))))
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["src"] for image in images] == ["data:image/webp;base64,AAAA", "data:image/webp;base64,BBBB"]
    assert [image["alt"] for image in images] == [
        "original, <easy>.png: 24 bpp",
        'a"trial, <easy>.png: 0.499 bpp, 31.26 dB PSNR',
    ]
    assert "&lt;easy&gt;.png: the fewest bits" in text


def test_a_page_with_the_largest_pictures_is_below_5_mb(run: RunFiles) -> None:
    """Noise, which nothing compresses, in all pictures that a report may have."""
    import numpy as np

    from orchestrator.report.illustrate import PICTURE_SIDE, STUDENTS_SHOWN, as_webp

    side = PICTURE_SIDE + 100
    noise = as_webp(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    pictures = tuple(Picture(name=str(n), bpp=1.0, psnr_db=30.0, webp=noise) for n in range(1 + STUDENTS_SHOWN))
    scenes = tuple(Scene(photograph=name, why="", bpp=1.0, original=noise, pictures=pictures) for name in PHOTOGRAPHS)
    text = render(replace(run, pictures=Pictures(weights={}, scenes=scenes)))
    assert 3_000_000 < len(text.encode()) < 5_000_000


def test_files_of_the_section_are_read_from_the_run_folder(run: RunFiles, run_folder: Path) -> None:
    assert run.references is not None
    (run_folder / "coded/references.json").write_text(json.dumps(run.references.model_dump(mode="json")))
    (run_folder / "pictures.json").write_text(json.dumps(Pictures(weights={}, scenes=()).model_dump(mode="json")))
    again = read_run(Store(run_folder))
    assert (again.references, again.pictures) == (run.references, Pictures(weights={}, scenes=()))
