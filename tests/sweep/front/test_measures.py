"""The anchor's tasks: what they raise reaches the driver as it was, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.photos import Photograph, PhotographError
from orchestrator.results.anchor import ANCHOR, COMPLEXITY, AnchorFile, Complexities
from orchestrator.results.files import read_file, write_file
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections import Validation
from orchestrator.store.store import Store
from orchestrator.sweep.front.measures import Measures, Measuring, saved_measures
from tests.evaluation import test_anchor


def test_a_photograph_that_is_gone_is_one_line(
    local_ray: None, tiny_spec: Path, tmp_path: Path, validation_photographs: tuple[Photograph, ...]
) -> None:
    spec = load_spec(tiny_spec)
    ((photograph, crop), *_) = validation_crops(validation_photographs, Validation(crops=1, size=128))
    gone = replace(photograph, path=str(tmp_path / "gone.png"))
    with pytest.raises(PhotographError) as caught:
        Measuring(spec, {"class": spec.students[0]}, [(gone, crop)], Store(tmp_path / "run"), print).result()
    assert str(caught.value).startswith(f"{tmp_path / 'gone.png'}: ") and len(str(caught.value).splitlines()) == 1


def test_the_anchor_is_written_with_what_it_costs(
    local_ray: None, tiny_spec: Path, tmp_path: Path, validation_photographs: tuple[Photograph, ...]
) -> None:
    spec, run = load_spec(tiny_spec, ["axes=[decode_ms_per_megapixel]"]), Store(tmp_path)
    crops = validation_crops(validation_photographs, Validation(crops=1, size=128))
    same = spec.students[0]  # the student is the teacher's network
    measured = Measuring(spec, {"class": same}, crops, run, print).result()
    anchor = read_file(run, ANCHOR, AnchorFile)
    assert anchor is not None and anchor.complexity is not None and anchor.anchor == measured.anchor
    assert (anchor.anchor.teacher, anchor.complexity.params) == ("hyperprior", measured.complexity["class"].params)
    assert anchor.complexity.macs_per_pixel == measured.complexity["class"].macs_per_pixel
    assert anchor.complexity.decode_ms_per_megapixel


def test_the_measures_of_an_earlier_start_are_those_of_both_files(tmp_path: Path) -> None:
    run, anchor = Store(tmp_path), test_anchor.ANCHOR
    cost = Complexity(params=1, macs_per_pixel=3.0, encoder_macs_per_pixel=2.0, decoder_macs_per_pixel=1.0)
    assert saved_measures(run) is None
    write_file(run, COMPLEXITY, Complexities(classes={"hyperprior-n8-m96": cost}))
    assert saved_measures(run) is None
    write_file(run, ANCHOR, AnchorFile(anchor=anchor, digest=anchor.digest, mean_log_lagrangian={"a": 0.0}))
    assert saved_measures(run) == Measures(anchor, {"hyperprior-n8-m96": cost})
    run.delete(COMPLEXITY)
    assert saved_measures(run) is None
