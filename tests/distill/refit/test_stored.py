"""Names of refitted first weights, the crops they are made from, and stored ones that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.families import FAMILIES
from models.ladder import RateLadder
from models.weights import save_ladder
from orchestrator.distill.refit.stored import (
    arrays_of,
    crops_of,
    is_whole,
    load_start,
    make_start,
    start_name,
    start_work,
    tensors_digest,
)
from orchestrator.features.format.key import FeatureError, TeacherWeights
from orchestrator.photographs import crops
from orchestrator.photographs.crops import Crop, CropPlan, plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Network, RateLadderSection, Refit, Student
from orchestrator.store.store import Store

TEACHER = TeacherWeights(name="t", path="/t.safetensors", digest="0" * 64)
PHOTOGRAPHS = tuple(
    Photograph(path=f"/photographs/{letter}.png", digest=letter * 64, width=300, height=300) for letter in "ab"
)
NETWORK, RATES, HOW = Network(family="hyperprior", N=8, M=12), RateLadderSection(), Refit(crops=10)


def plan(seed: int = 0) -> CropPlan:
    """8 crops of each rate point."""
    return plan_crops(PHOTOGRAPHS, Crops(size=64, count=40), 5, seed)


def test_a_name_is_of_all_that_decides_the_weights_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    name = start_name(TEACHER, NETWORK, RATES, plan(), HOW)
    assert re.fullmatch(r"starts/[0-9a-f]{64}\.safetensors", name)
    others = [
        start_name(replace(TEACHER, digest="1" * 64), NETWORK, RATES, plan(), HOW),
        start_name(TEACHER, NETWORK.model_copy(update={"N": 16}), RATES, plan(), HOW),
        start_name(TEACHER, NETWORK, RateLadderSection(kind="fixed-lambda"), plan(), HOW),
        start_name(TEACHER, NETWORK, RATES, plan(seed=1), HOW),
        start_name(TEACHER, NETWORK, RATES, plan(), Refit(crops=15)),
        start_name(TEACHER, NETWORK, RATES, plan(), Refit(crops=10, criterion="activation")),
    ]
    assert len({name, *others}) == 1 + len(others)
    assert start_name(replace(TEACHER, name="u", path="/u.safetensors"), NETWORK, RATES, plan(), HOW) == name
    student = Student(family="hyperprior", N=8, M=12, init="teacher-refit", teachers=("a",))
    assert start_name(TEACHER, student, RATES, plan(), HOW) == name
    drawn = crops.crop_at
    for moved, is_used in ((5, False), (0, True)):  # two of each rate point's eight are used

        def elsewhere(*of: Any, moved: int = moved) -> Crop:
            return replace(drawn(*of), left=0, top=1) if of[-1] == moved else drawn(*of)

        monkeypatch.setattr(crops, "crop_at", elsewhere)
        assert (start_name(TEACHER, NETWORK, RATES, plan(), HOW) != name) is is_used


def test_crops_are_spread_evenly_over_each_rate_points() -> None:
    made = plan()
    assert crops_of(made, Refit(crops=10)) == [made.crops[pool[place]] for pool in made.pools for place in (0, 4)]
    assert crops_of(made, Refit(crops=20)) == [made.crops[pool[place]] for pool in made.pools for place in (0, 2, 4, 6)]
    assert crops_of(made, Refit(crops=8)) == [made.crops[pool[0]] for pool in made.pools]  # one at least
    assert sorted(crops_of(made, Refit(crops=1000)), key=made.crops.index) == list(made.crops)


def test_the_work_of_a_start_has_its_crops_photographs_alone() -> None:
    everything = {photograph.digest: photograph for photograph in PHOTOGRAPHS} | {"c": PHOTOGRAPHS[0]}
    work = start_work(TEACHER, NETWORK, RATES, plan(), HOW, everything)
    assert (work.name, work.title) == (start_name(TEACHER, NETWORK, RATES, plan(), HOW), "hyperprior-n8 of t")
    assert (work.network, work.rates, work.teacher, work.how) == (NETWORK, RATES, "/t.safetensors", HOW)
    assert work.crops == tuple(crops_of(plan(), HOW))
    assert work.photographs == {crop.photograph: everything[crop.photograph] for crop in work.crops}


def ladder(N: int = 8, seed: int = 0) -> RateLadder:
    torch.manual_seed(seed)
    return RateLadder(family="hyperprior", N=N, M=12, lambdas=PRIM_LAMBDAS)


def test_a_student_gets_the_stored_weights(tmp_path: Path) -> None:
    store, stored, student = Store(tmp_path), ladder(seed=1), ladder()
    save_ladder(tmp_path / "a.safetensors", stored, tensors=tensors_digest(arrays_of(stored)))
    assert tensors_digest(arrays_of(student)) != tensors_digest(arrays_of(stored))
    load_start(store, "a.safetensors", student)
    assert tensors_digest(arrays_of(student)) == tensors_digest(arrays_of(stored))


def test_a_start_is_made_from_what_its_family_computes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    before = start_name(TEACHER, NETWORK, RATES, plan(), HOW)
    monkeypatch.setitem(FAMILIES, "hyperprior", replace(FAMILIES["hyperprior"], forward_version=99))
    assert start_name(TEACHER, NETWORK, RATES, plan(), HOW) != before


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""]
)
def test_a_damaged_start_is_made_again(
    tmp_path: Path, train_photographs: tuple[Photograph, ...], damage: Callable[[bytes], bytes]
) -> None:
    store = Store(tmp_path / "store")
    save_ladder(tmp_path / "teacher.safetensors", ladder(N=8))
    teacher = replace(TEACHER, path=str(tmp_path / "teacher.safetensors"))
    crops = plan_crops(train_photographs[:1], Crops(size=64, count=40), 5, 0)
    by_digest = {photograph.digest: photograph for photograph in train_photographs}
    work = start_work(teacher, NETWORK, RATES, crops, HOW, by_digest)
    assert not is_whole(store, work.name)
    make_start(store, work)
    made = store.read(work.name)
    assert is_whole(store, work.name)
    make_start(store, work)  # as another process does at the same time
    store.replace(work.name, damage(made))
    assert not is_whole(store, work.name)
    make_start(store, work)
    assert store.read(work.name) == made


def test_stored_weights_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    store, name = Store(tmp_path), "a.safetensors"
    with pytest.raises(FeatureError) as gone:
        load_start(store, name, ladder())
    assert str(gone.value) == f"{store.url}/{name} is gone: the same command makes it again"
    save_ladder(tmp_path / name, ladder(), tensors="0" * 64)
    with pytest.raises(FeatureError) as changed:
        load_start(store, name, ladder())
    assert str(changed.value) == (
        f"{store.url}/{name}: damaged (start.safetensors: the tensors' digest differs): the same command makes it again"
    )
    save_ladder(tmp_path / name, other := ladder(N=16), tensors=tensors_digest(arrays_of(other)))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / name).read_bytes()[:-9])
    for unusable in (name, "cut.safetensors"):
        with pytest.raises(FeatureError) as raised:
            load_start(store, unusable, ladder())
        text = str(raised.value)
        assert text.startswith(f"{store.url}/{unusable}: damaged (") and len(text.splitlines()) == 1
