from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from models.catalogue import SHIPPED
from models.weights import digest
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.load import load_spec
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.messages import SpecError
from orchestrator.spec.sections import Photographs, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder.inputs import inputs_of, open_folder, versions

TRAIN = (Photograph(path="/photographs/a.png", digest="a" * 64, width=300, height=300),)


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "name": "t",
        "trials": 1,
        "photographs": Photographs(train="/photographs", validation="/held-out"),
        "teachers": (Teacher(name="a", weights=str(SHIPPED / "teacher-hyperprior.safetensors")),),
        "students": (Student(family="hyperprior", N=8, M=96),),
        "losses": (LossSpace(latent=0.1),),
    }
    return Spec(**(fields | changes))


def inputs(given: Spec, train: tuple[Photograph, ...] = TRAIN) -> dict[str, Any]:
    return inputs_of(given, train, ())


def test_a_new_folder_says_what_it_was_made_from(tmp_path: Path) -> None:
    run = Store(tmp_path)
    assert open_folder(run, spec(), inputs(spec())) is False
    assert load_spec(tmp_path / "spec.yaml") == spec()
    assert open_folder(run, spec(), inputs(spec())) is True


def test_another_specification_is_refused_in_one_line_that_names_the_field(tmp_path: Path) -> None:
    open_folder(Store(tmp_path), spec(), inputs(spec()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = spec(students=(Student(family="hyperprior", N=12, M=96),))
    with pytest.raises(SpecError) as raised:
        open_folder(Store(tmp_path), other, inputs(other))
    held = f"file://{tmp_path} holds a sweep with 8; give this one another name"
    assert str(raised.value) == f"students.0.N: 12 is not allowed: {held}"
    changed = Photograph(path=TRAIN[0].path, digest="b" * 64, width=300, height=300)
    with pytest.raises(SpecError, match=r"^photographs\.train\.0: "):
        open_folder(Store(tmp_path), spec(), inputs(spec(), (changed,)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_moved_files_and_another_store_are_the_same_sweep(tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    shutil.copyfile(SHIPPED / "teacher-hyperprior.safetensors", moved)
    elsewhere = spec(teachers=(Teacher(name="a", weights=str(moved)),), store="/other", results="/another")
    assert inputs(elsewhere) == inputs(spec())


def test_what_is_no_file_stays_in_the_inputs_as_it_is_written() -> None:
    weights = SHIPPED / "teacher-hyperprior.safetensors"
    students = tuple(Student(family="hyperprior", N=8, M=96, init=init) for init in ("random", str(weights)))
    made = inputs(spec(teachers=(Teacher(name="a", weights="zoo:mbt2018-mean"),), students=students))
    assert made["teachers"] == [{"name": "a", "weights": "zoo:mbt2018-mean"}]
    assert [student["init"] for student in made["students"]] == ["random", digest(weights)]
    assert made["photographs"]["train"] == [TRAIN[0].digest] and made["photographs"]["validation"] == []
    assert {"results", "store", "node_cache", "preemption"}.isdisjoint(made)
    assert "micro_batch_size" not in made["training"] and made["training"]["batch_size"] == spec().training.batch_size


def test_versions_name_libraries_and_revision() -> None:
    begun_with = versions()
    assert begun_with.libraries["ray"] and (begun_with.git_revision is None or len(begun_with.git_revision) >= 40)
