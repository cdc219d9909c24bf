"""Students are exported where their bundle is missing."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import ray

from models.catalogue import SHIPPED
from orchestrator.results.bundles import bundle_file, unpacked
from orchestrator.store.store import Store
from orchestrator.sweep.front import bundles
from orchestrator.sweep.front.bundles import figures_of, make_bundles
from orchestrator.trials.weights import LostWeights
from tests.results.builders import coded_student


def student_of(run: Store) -> object:
    weights = (SHIPPED / "teacher-hyperprior.safetensors").read_bytes()
    run.replace("weights/a.safetensors", weights)
    return coded_student(weights_digest=hashlib.sha256(weights).hexdigest())


def test_lost_weights_are_named_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(LostWeights, match=r"weights/a.safetensors is gone; without trials/01-"):
        make_bundles(Store(tmp_path), [coded_student()], print)
    assert not ray.is_initialized() and not (tmp_path / "bundles").exists()


def test_a_bundle_says_what_it_is_of() -> None:
    figures = figures_of(coded_student(bd_rate_pct=None, teacher=None))
    assert figures["trial"] == "01-hyperprior-n8-control" and not {"bd_rate_pct", "teacher"} & figures.keys()


@pytest.mark.slow
def test_what_is_missing_or_damaged_is_made_and_the_rest_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = Store(tmp_path / "run"), list[str]()
    student = student_of(run)
    make_bundles(run, [student], said.append)  # type: ignore[list-item]
    assert said == ["bundles: 1 of 1 students exported to run without torch"] and not ray.is_initialized()
    name = bundle_file(student.trial_id, student.weights_digest)  # type: ignore[attr-defined]
    first = run.read(name)
    assert {"codec.json", "entropy.npz", "g_a.0.onnx", "g_s.0.onnx", "h_a.0.onnx"} == {*unpacked(first, name)}
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "connected", None)  # Ray is not needed
        make_bundles(run, [student], said.append)  # type: ignore[list-item]
    shutil.rmtree(tmp_path / "run/weights")
    run.replace(name, first[:1000])
    with pytest.raises(LostWeights):  # it is to be made again
        make_bundles(run, [student], said.append)  # type: ignore[list-item]
    assert len(said) == 1
