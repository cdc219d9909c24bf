"""Who writes what in one MLflow: sweeps of one name, two people with one sweep, weights that were trained again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from models.catalogue import SHIPPED
from models.weights import WeightsError
from orchestrator.registry import names, package
from orchestrator.registry.reach import RegistryError
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.sections import Photographs, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import trials
from orchestrator.sweep.run_folder.inputs import sweep_id
from tests.registry.somebody import SWEEP, Somebody
from tests.results.builders import coded_student

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
    runs = one.client.search_runs([one.client.get_experiment_by_name(mine.model).experiment_id])
    assert {run.data.tags["begun_by"] for run in runs} == {"one", "two"} and len(runs) == 2
    for run in runs:
        assert len(one.client.get_metric_history(run.info.run_id, "val_bd_rate_pct")) == 1


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
    assert len(one.client.search_runs([one.client.get_experiment_by_name(again.model).experiment_id])) == 1


def test_a_deleted_experiment_is_named(tmp_path: Path, uri: str) -> None:
    one = Somebody(tmp_path, uri)
    one.register()
    number = one.client.get_experiment_by_name(one.registry.model).experiment_id
    one.client.delete_experiment(number)
    with pytest.raises(RegistryError, match=rf"was deleted: restore it \(.*--experiment-id {number}\)"):
        one.register()


def test_a_run_folder_that_was_moved_is_named_and_nothing_is_written_to_the_old_place(
    tmp_path: Path, database: Callable[[Path], str]
) -> None:
    one = Somebody(tmp_path / "before", database(tmp_path / "before/quick/mlflow.db"))
    student = one.student("01-a", b"weights")
    one.register(student)
    (tmp_path / "before").rename(tmp_path / "after")
    moved = Somebody(tmp_path / "after", f"sqlite:///{tmp_path}/after/quick/mlflow.db")
    with pytest.raises(RegistryError, match=r"the run folder was moved: without its mlflow.db the same command makes"):
        moved.register(student)
    assert not (tmp_path / "before").exists()


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


def test_weights_that_were_exchanged_in_mlflow_are_not_loaded(tmp_path: Path) -> None:
    from orchestrator.registry.registered_codec import RegisteredCodec

    right, wrong = (SHIPPED / f"teacher-{family}.safetensors" for family in ("hyperprior", "mean-scale"))
    digest = hashlib.sha256(right.read_bytes()).hexdigest()
    package.save(tmp_path / "model", coded_student(weights_digest=digest), right.read_bytes())
    artifacts = {name: str(tmp_path / "model/artifacts" / name) for name in (package.WEIGHTS, "figures.json")}
    context = SimpleNamespace(artifacts={"weights": artifacts[package.WEIGHTS], "figures": artifacts["figures.json"]})
    RegisteredCodec().load_context(context)
    shutil.copyfile(wrong, artifacts[package.WEIGHTS])
    with pytest.raises(WeightsError, match=f"^.*{package.WEIGHTS}: its SHA-256 is [0-9a-f]*, but {digest} was regist"):
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
