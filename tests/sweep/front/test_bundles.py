"""Students are exported where their bundle is missing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import ray

from models.catalogue import SHIPPED
from orchestrator.results.bundles import CodingCosts, bundle_file, costs_file, unpacked
from orchestrator.results.files import read_file
from orchestrator.store.store import Store
from orchestrator.sweep.front import bundles, timing
from orchestrator.sweep.front.bundles import Made, figures_of, make_bundles
from orchestrator.sweep.front.timing import TimingError, coding_costs
from orchestrator.trials.weights import LostWeights
from tests.results import builders
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


def test_a_bundle_that_was_not_timed_is_kept_without_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, student = Store(tmp_path), coded_student()
    bundles._keep(run, student, Made(b"second", TimingError("it is slow")))
    assert run.list("bundles") == [bundle_file(student.trial_id, student.weights_digest)]
    assert run.read(run.list("bundles")[0]) == b"second"
    said = f"bundles: {student.trial_id} was not timed, its card does without: it is slow\n"
    assert capsys.readouterr().out == said


def test_a_bundle_that_is_made_again_keeps_the_costs_that_a_card_may_state(tmp_path: Path) -> None:
    run, student, costs = Store(tmp_path), coded_student(), builders.coding_costs()
    for again in (costs, costs.model_copy(update={"processor": "another"}), TimingError("it is slow")):
        bundles._keep(run, student, Made(b"bundle", again))
        assert read_file(run, costs_file(student.trial_id, student.weights_digest), CodingCosts) == costs


@pytest.mark.slow
def test_a_bundle_that_takes_for_ever_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PATIENCE_S", 0.1)
    with pytest.raises(TimingError, match=r"^lic bench took longer than 0 s$"):
        coding_costs(tmp_path)


@pytest.mark.slow
def test_what_cannot_be_timed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TimingError, match=rf"^{re.escape(str(tmp_path))}: no bundle: codec.json is not in it$"):
        coding_costs(tmp_path)


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
    costs = costs_file(student.trial_id, student.weights_digest)  # type: ignore[attr-defined]
    timed = read_file(run, costs, CodingCosts)
    assert timed is not None and timed.processor and timed.threads == 1 and (timed.width, timed.height) == (384, 320)
    assert timed.samples == 3 * len(json.loads(unpacked(first, name)["codec.json"])["lambdas"])
    for spread in (timed.encode_ms_per_megapixel, timed.decode_ms_per_megapixel):
        assert 1 < spread.lower_quartile <= spread.median <= spread.upper_quartile < 1e5
    assert timed.peak_memory_mb is not None and 50 < timed.peak_memory_mb < 700  # torch alone has more than 200
    assert {"codec.json", "entropy.npz", "g_a.0.onnx", "g_s.0.onnx", "h_a.0.onnx"} == {*unpacked(first, name)}
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "connected", None)  # Ray is not needed
        make_bundles(run, [student], said.append)  # type: ignore[list-item]
        assert read_file(run, costs, CodingCosts) == timed
        run.delete(costs)  # as in a run folder of an earlier version: nothing is timed
        make_bundles(run, [student], said.append)  # type: ignore[list-item]
        assert run.list("bundles") == [name]
    shutil.rmtree(tmp_path / "run/weights")
    run.replace(name, first[:1000])
    with pytest.raises(LostWeights):  # it is to be made again
        make_bundles(run, [student], said.append)  # type: ignore[list-item]
    assert len(said) == 1
