"""Who writes what in one MLflow: sweeps of one name, two people with one sweep, weights that were trained again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from lic_codec.errors import CodecError
from models.catalogue import SHIPPED
from orchestrator.registry import names, package
from orchestrator.registry.database import database_url
from orchestrator.registry.opening import fetched
from orchestrator.registry.reach import RegistryError
from orchestrator.registry.registered import Registered
from orchestrator.results.bundles import costs_file, unpacked
from orchestrator.results.files import write_file
from orchestrator.results.front import CANDIDATES, Candidates
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.sections import Photographs, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import trials
from orchestrator.sweep.run_folder.inputs import sweep_id
from tests.registry.conftest import Exported
from tests.registry.somebody import SWEEP, Somebody
from tests.results.builders import coded_student, coding_costs

OTHER = "b" * 64


def test_two_sweeps_of_one_name_never_meet(tmp_path: Path, uri: str) -> None:
    one, two = Somebody(tmp_path / "one", uri), Somebody(tmp_path / "two", uri, OTHER)
    (mine,) = one.register(one.student("01-a", b"mine"))
    before = one.client.get_model_version(mine.model, mine.version)
    (theirs,) = two.register(two.student("01-a", b"theirs"))
    assert mine.model != theirs.model and mine.uri != theirs.uri
    assert one.client.get_experiment_by_name(mine.model).tags["sweep"] == SWEEP
    assert one.client.get_experiment_by_name(theirs.model).tags["sweep"] == OTHER
    assert dict(one.client.get_model_version(mine.model, mine.version)) == dict(before)
    assert one.weights_of(mine, tmp_path) == b"mine" and two.weights_of(theirs, tmp_path) == b"theirs"


def test_two_people_with_the_same_inputs_keep_their_own_weights_and_histories(tmp_path: Path, uri: str) -> None:
    """On two machines the same inputs give other weights."""
    one, two = Somebody(tmp_path / "one", uri), Somebody(tmp_path / "two", uri)
    (mine,) = one.register(one.student("01-a", b"mine"), begun_by="one")
    (theirs,) = two.register(two.student("01-a", b"theirs"), begun_by="two")
    (again,) = one.register(one.student("01-a", b"mine"), begun_by="one")
    assert (mine.version, theirs.version) == ("1", "2")
    assert (again.version, again.new, again.alias) == ("1", False, mine.alias)
    assert one.weights_of(mine, tmp_path) == b"mine" and two.weights_of(theirs, tmp_path) == b"theirs"
    runs = one.runs()
    assert {run.data.tags["begun_by"] for run in runs} == {"one", "two"} and len(runs) == 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 2  # each has a sweep of their own
    for run in runs:
        assert len(one.client.get_metric_history(run.info.run_id, "estimated_bd_rate_pct")) == 1


def test_an_alias_names_its_trial_s_weights_also_when_they_were_trained_again(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    first, second = one.register(one.student("01-a", b"first"), one.student("02-b", b"second"))
    (third,) = one.register(one.student("01-a", b"again"), begun_by="later")
    assert [version.version for version in (first, second, third)] == ["1", "2", "3"]
    contents = [one.weights_of(version, tmp_path) for version in (first, second, third)]
    assert contents == [b"first", b"second", b"again"]


def test_a_sweep_is_brought_to_another_registry(tmp_path: Path, uri: str, database: Callable[[Path], str]) -> None:
    here, there = Somebody(tmp_path, uri), Somebody(tmp_path, database(tmp_path / "there.db"))
    student = here.student("01-a", b"weights")
    (mine,), (copy,) = here.register(student), there.register(student)
    assert mine.new and copy.new and mine.uri == copy.uri and there.weights_of(copy, tmp_path) == b"weights"


def test_what_was_deleted_in_mlflow_is_made_again(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    student = one.student("01-a", b"weights")
    (version,) = one.register(student)

    shutil.rmtree(tmp_path / "mlruns")  # the artifacts
    (again,) = one.register(student)
    assert (again.version, again.new) == ("1", False) and one.weights_of(again, tmp_path) == b"weights"

    one.client.delete_model_version(version.model, "1")
    assert one.register(student)[0].new

    one.client.delete_registered_model(version.model)
    (again,) = one.register(student)
    assert again.new and one.weights_of(again, tmp_path) == b"weights"

    one.client.delete_run(one.client.get_model_version(again.model, again.version).run_id)
    one.register(student)
    assert len(one.runs()) == 1


def test_a_deleted_experiment_is_named(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    one.register()
    number = one.client.get_experiment_by_name(one.registry.model).experiment_id
    one.client.delete_experiment(number)
    with pytest.raises(RegistryError, match=rf"was deleted: restore it \(.*--experiment-id {number}\)"):
        one.register()


@pytest.fixture
def copied(tmp_path: Path, database: Callable[[Path], str]) -> tuple[Path, Registered]:
    """A registered run folder, copied; the first one is gone. With its version."""
    one = Somebody(tmp_path / "before it", database(tmp_path / "before it/quick/mlflow.db"))
    (version,) = one.register(one.student("01-a", b"weights"))
    shutil.copytree(tmp_path / "before it", tmp_path / "af%ter")
    shutil.rmtree(tmp_path / "before it")
    return tmp_path / "af%ter", version


def test_a_copied_run_folder_registers_what_it_lacks_and_gives_what_it_has(copied: tuple[Path, Registered]) -> None:
    folder, version = copied
    there = Somebody(folder, database_url(folder / "quick/mlflow.db"))
    (again,) = there.register(there.student("01-a", b"weights"))
    assert (again.version, again.new) == (version.version, False)
    assert there.weights_of(again, folder) == b"weights"
    other, _ = there.register(there.student("02-b", b"others"), there.student("01-a", b"weights"))
    assert other.new and there.weights_of(other, folder) == b"others"
    assert not (folder.parent / "before it").exists()


def test_a_codec_is_opened_from_a_copied_run_folder(
    copied: tuple[Path, Registered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, version = copied
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database_url(folder / "quick/mlflow.db"))
    for address in (version.uri, f"models:/{version.model}/1", f"models:/{version.model}@best-bd-rate"):
        with tempfile.TemporaryDirectory() as to:
            found = fetched(address, to)
            assert (found / "entropy.npz").read_bytes() == b"weights" and Path(to) in found.parents


@pytest.mark.parametrize("step", ["log_artifacts", "create_model_version", "set_registered_model_alias"])
def test_killed_in_mid_registration_the_next_one_completes_it(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    one = Somebody(tmp_path, uri)
    students = one.student("01-a", b"first"), one.student("02-b", b"second")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, step, kill)
        one.register(*students)
    versions = one.register(*students)
    assert sorted(version.version for version in versions) == ["1", "2"]
    model = one.client.get_registered_model(one.registry.model)
    assert len(one.client.search_model_versions(f"name='{model.name}'")) == 2
    assert {*model.aliases} == {
        *("best-bd-rate", "fastest", "balanced", "encoder-smallest", "decoder-smallest"),
        *(version.alias for version in versions),
    }
    for version in versions:
        assert one.client.get_model_version_by_alias(model.name, version.alias).description.startswith("# 0")


def test_what_coding_takes_is_with_the_version_and_its_run(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    timed, untimed = one.student("01-a", b"timed"), one.student("02-b", b"untimed")
    write_file(one.run, costs_file("01-a", timed.weights_digest), coding_costs())
    write_file(one.run, CANDIDATES, Candidates(students=(timed, untimed)))
    for _ in range(2):
        with_costs, without = (
            one.client.get_model_version(version.model, version.version) for version in one.register(timed, untimed)
        )
    assert with_costs.tags["bundle_decode_ms_per_megapixel"] == "130.0" and "AMD EPYC" in with_costs.description
    assert not [name for name in without.tags if name.startswith("bundle")] and "EPYC" not in without.description
    metrics = one.client.get_run(with_costs.run_id).data.metrics
    assert metrics["bundle_peak_memory_mb"] == 140.04 and metrics["coded_bd_rate_pct"] == 0.0
    assert len(one.client.get_metric_history(with_costs.run_id, "bundle_encode_ms_per_megapixel")) == 1
    assert "bundle_peak_memory_mb" not in one.client.get_run(without.run_id).data.metrics
    for version, known in ((with_costs, True), (without, False)):
        folder = version.source.removeprefix(f"runs:/{version.run_id}/")
        path = one.client.download_artifacts(version.run_id, f"{folder}/artifacts/figures.json", str(tmp_path))
        costs = json.loads(Path(path).read_text()).get("bundle_costs")
        assert (costs is not None and costs["decode_ms_per_megapixel"]["median"] == 130.0) == known


def test_nothing_is_written_where_nothing_is_missing(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    student = one.student("01-a", b"weights")
    one.register(student)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not one.register(student)[0].new
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_check_leaves_no_run_and_no_model(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    one.registry.check()
    one.registry.check()
    assert not one.client.search_runs([one.client.get_experiment_by_name(one.registry.model).experiment_id])
    assert not one.client.search_registered_models()


def test_a_version_of_an_earlier_project_gets_its_bundle(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    student = one.student("01-a", b"weights")
    (version,) = one.register(student)
    (bundle,) = (tmp_path / "mlruns").rglob("bundle")
    shutil.rmtree(bundle)
    (again,) = one.register(student)
    assert (again.version, again.new) == (version.version, False) and bundle.is_dir()


@pytest.mark.slow
def test_a_bundle_that_was_exchanged_in_mlflow_is_not_loaded(tmp_path: Path, exported: Exported) -> None:
    from orchestrator.registry.registered_codec import RegisteredCodec

    content = package.Content(
        student=coded_student(), weights=exported.weights, bundle=unpacked(exported.bundle, "it"), card="", plot=""
    )
    package.save(tmp_path / "model", content)
    folder = tmp_path / "model/artifacts"
    context = SimpleNamespace(artifacts={"bundle": str(folder / "bundle"), "figures": str(folder / "figures.json")})
    RegisteredCodec().load_context(context)
    card = folder / "bundle/codec.json"
    card.write_text(card.read_text().replace('"name"', '"name" '))
    with pytest.raises(CodecError, match=r"^.*codec.json: its SHA-256 is [0-9a-f]*, but [0-9a-f]* was registered$"):
        RegisteredCodec().load_context(context)


def test_names_are_mlflow_s_and_never_the_same() -> None:
    odd = ("hyperprior-v1.0", "hyperprior-v1_0", "hyperprior-v1-0", "latest", "v1", "A" * 100)
    file = str(SHIPPED / "teacher-hyperprior.safetensors")
    spec = Spec(
        name="a..b.",
        trials=2 * len(odd) + 1,
        photographs=Photographs(train="/photographs", validation="/held-out"),
        teachers=tuple(Teacher(name=name, weights=file) for name in odd),
        students=(Student(family="hyperprior", N=8, M=96),),
        losses=(LossSpace(latent=0.1), LossSpace(reconstruction=0.1)),
    )
    aliases = {names.alias(trial.trial_id, "0" * 64) for trial in trials(spec)}
    assert len(aliases) == spec.trials
    for alias in aliases:
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
    _validate_model_name(names.model_name(spec.name, SWEEP))


def test_a_sweep_s_id_comes_from_its_inputs() -> None:
    assert sweep_id({"a": 1, "b": [2.5]}) == sweep_id({"b": [2.5], "a": 1}) != sweep_id({"a": 1, "b": [2.25]})
    assert len(sweep_id({})) == 64
