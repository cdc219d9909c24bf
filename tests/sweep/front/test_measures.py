"""The anchor's tasks: what they raise reaches the driver as it was, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.photos import Photograph, PhotographError
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections import Validation
from orchestrator.store.store import Store
from orchestrator.sweep.front.measures import measure


def test_a_photograph_that_is_gone_is_one_line(
    local_ray: None, tiny_spec: Path, tmp_path: Path, validation_photographs: tuple[Photograph, ...]
) -> None:
    spec = load_spec(tiny_spec)
    ((photograph, crop), *_) = validation_crops(validation_photographs, Validation(crops=1, size=128))
    gone = replace(photograph, path=str(tmp_path / "gone.png"))
    with pytest.raises(PhotographError) as caught:
        measure(spec, {"class": spec.students[0]}, [(gone, crop)], Store(tmp_path / "run"), print)
    assert str(caught.value).startswith(f"{tmp_path / 'gone.png'}: ") and len(str(caught.value).splitlines()) == 1
