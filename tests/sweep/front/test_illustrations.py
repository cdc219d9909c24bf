"""What a sweep measures for its report alone, in Ray tasks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from models.catalogue import SHIPPED
from orchestrator.evaluation.metric import Measured
from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import needed, write_file
from orchestrator.results.front import CODED_ANCHOR, CodedCurve, CodingKey
from orchestrator.results.pictures import PICTURES, Pictures
from orchestrator.results.references import REFERENCES, References
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections import Validation
from orchestrator.store.store import Store
from orchestrator.sweep.front import illustrations
from orchestrator.sweep.front.anchor import pictures
from orchestrator.sweep.front.illustrations import Illustrations
from tests.evaluation import test_anchor
from tests.results.builders import coded_student

WEIGHTS = (SHIPPED / "teacher-mean-scale.safetensors").read_bytes()
STUDENT = coded_student(
    trial_id="01-student", weights="weights/a.safetensors", weights_digest=hashlib.sha256(WEIGHTS).hexdigest()
)


@pytest.fixture
def wanted(
    local_ray: None, tiny_spec: Path, tmp_path: Path, validation_photographs: tuple[Photograph, ...]
) -> Illustrations:
    """Two small crops; the anchor's bitstreams of them, and a student's weights, are in the run folder."""
    run = Store(tmp_path / "run")
    run.replace("weights/a.safetensors", WEIGHTS)
    crops = validation_crops(validation_photographs, Validation(crops=2, size=64))
    anchor = replace(test_anchor.ANCHOR, teacher="hyperprior")
    middle = len(anchor.lambdas) // 2
    rows = tuple(
        Measured(photograph=name, rate_point=middle, bpp=bpp, psnr_db=30.0, mse=0.001)
        for (name, _), bpp in zip(pictures(crops), (0.9, 0.6), strict=True)
    )
    key = CodingKey(weights="0" * 64, rate_points=(), crops=())
    write_file(run, CODED_ANCHOR, CodedCurve(key=key, entropy_id="", points=(), validation=rows))
    return Illustrations(load_spec(tiny_spec), crops, run, anchor)


def test_other_teachers_codecs_and_crops_are_measured_once(wanted: Illustrations, capsys) -> None:
    wanted.begin()
    wanted.finish([STUDENT])
    references = needed(wanted.run, REFERENCES, References)
    assert [curve.name for curve in references.curves] == ["mean-scale", "JPEG", "WebP", "AVIF", "JPEG XL"]
    assert len(references.curves[0].points) == len(wanted.spec.rate_ladder.lambdas)
    found = needed(wanted.run, PICTURES, Pictures)
    names = [name for name, _ in pictures(wanted.crops)]
    assert [(scene.photograph, scene.bpp) for scene in found.scenes] == [(names[1], 0.6), (names[0], 0.9)]
    assert [[picture.name for picture in scene.pictures] for scene in found.scenes] == [
        ["hyperprior", "01-student"]
    ] * 2
    before = {name: wanted.run.read(name) for name in (REFERENCES, PICTURES)}
    again = Illustrations(wanted.spec, wanted.crops, wanted.run, wanted.anchor)
    again.begin()
    assert again._tasks == []
    again.finish([STUDENT])
    assert {name: wanted.run.read(name) for name in before} == before and capsys.readouterr().out == ""


def test_what_cannot_be_measured_is_a_line_and_no_error(wanted: Illustrations, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(illustrations, "warn", lines.append)
    gone = replace(wanted.crops[0][0], path="/nowhere/a.png")
    without = Illustrations(wanted.spec, [(gone, wanted.crops[0][1])], wanted.run, wanted.anchor)
    without.begin()
    without.finish([STUDENT.model_copy(update={"weights": "weights/lost.safetensors"})])
    assert [line.split(": ")[:2] for line in lines] == [
        ["report", "without other teachers and classical codecs"],
        ["report", "without photographs at equal rate"],
    ]
    assert "/nowhere/a.png" in lines[0] and "weights/lost.safetensors is gone" in lines[1]
    assert not wanted.run.exists(REFERENCES) and not wanted.run.exists(PICTURES)
