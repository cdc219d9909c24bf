"""What a trial starts from."""

from __future__ import annotations

import pytest
import torch

from models.catalogue import build_ladder
from models.ladder import RateLadder
from models.weights import digest, load_ladder, save_ladder
from orchestrator.distill.refit.stored import make_start, start_work
from orchestrator.distill.trial_data import SharedData, start_key
from orchestrator.distill.trial_run import first_ladder
from orchestrator.features.format.key import FeatureError, TeacherWeights, plan_features
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.networks import with_inherited
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Photographs, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.space import trials

pytestmark = pytest.mark.slow  # refits


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Two teachers, and a student that starts from its teacher's channels or is refitted."""
    folder, teachers = tmp_path_factory.mktemp("teachers"), []
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        path = folder / f"{name}.safetensors"
        teacher = build_ladder(family="hyperprior", N=12, M=16, Z=10, lambdas=PRIM_LAMBDAS, kind="variable-rate")
        save_ladder(path, teacher)
        teachers.append(Teacher(name=name, weights=str(path)))
    return with_inherited(
        Spec(
            name="t",
            trials=9,
            photographs=Photographs(train="a", validation="b"),
            teachers=tuple(teachers),
            students=(Student(family="hyperprior", N=8, M=16, init="teacher-slice", inherit=("entropy",)),),
            losses=(LossSpace(latent=0.1), LossSpace(preset="prim-l1-inherit")),
        )
    )


@pytest.fixture(scope="module")
def data(spec: Spec, train_photographs: tuple[Photograph, ...], tmp_path_factory: pytest.TempPathFactory) -> SharedData:
    plan = plan_crops(train_photographs, Crops(count=40, size=64), len(PRIM_LAMBDAS), seed=0)
    store = Store(tmp_path_factory.mktemp("store"))
    by_digest = {photograph.digest: photograph for photograph in train_photographs}
    names = {}
    for key in {key for trial in trials(spec) if (key := start_key(trial)) is not None}:
        path = spec.weights_of(key[0])
        teacher = TeacherWeights(name=key[0], path=path, digest=digest(path))
        work = start_work(teacher, key[1], spec.rate_ladder, plan, key[2], by_digest)
        make_start(store, work)
        names[key] = work.name
    return SharedData(
        store_url=store.url,
        plan=plan,
        pixels_plan=plan_features(plan),
        feature_plans={teacher.name: plan_features(plan) for teacher in spec.teachers},
        channel_bits={},
        starts=names,
        validation=(),
    )


def first(spec: Spec, data: SharedData, trial: Trial) -> RateLadder:
    return first_ladder(spec, trial, data.of(trial))


def same(one: RateLadder, other: RateLadder, part: str = "") -> bool:
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    return all(torch.equal(own, value) for (name, own), value in pairs if part in name)


def test_what_a_student_inherits_sets_its_width_and_its_teachers(spec: Spec) -> None:
    (student,) = spec.students
    assert (student.Z, student.teachers) == (10, ("one", "other"))


def test_a_distilled_trial_and_its_control_start_from_the_same_weights(spec: Spec, data: SharedData) -> None:
    firsts = {(trial.teacher, trial.init, trial.start_of): first(spec, data, trial) for trial in trials(spec)}
    for init in ("teacher-slice", "teacher-refit"):
        for teacher in ("one", "other"):
            assert same(firsts[None, init, teacher], firsts[teacher, init, teacher])
        assert not same(firsts[None, init, "one"], firsts[None, init, "other"])
    for teacher in ("one", "other"):
        assert not same(firsts[None, "teacher-slice", teacher], firsts[None, "teacher-refit", teacher])


def test_the_entropy_part_is_the_teachers_own_unless_the_start_is_random(spec: Spec, data: SharedData) -> None:
    for trial in trials(spec):
        student = first(spec, data, trial)
        for teacher in ("one", "other"):
            inherited = same_entropy(student, load_ladder(spec.weights_of(teacher)))
            assert inherited == (trial.start_of == teacher), trial.trial_id


def test_transforms_are_compiled_where_the_specification_says_so(spec: Spec, data: SharedData) -> None:
    training = spec.training.model_copy(update={"compile": "transforms"})
    compiled = spec.model_copy(update={"training": training})
    trial = trials(spec)[0]
    for its, compiler in ((spec, None), (compiled, "inductor")):
        (network,) = first(its, data, trial).networks
        assert (network.g_a.compiler, network.g_s.compiler) == (compiler, compiler)


def same_entropy(student: RateLadder, teacher: RateLadder) -> bool:
    own, others = dict(student.named_parameters()), dict(teacher.named_parameters())
    names = [name for name in own if ".g_a." not in name and ".g_s." not in name]
    return all(torch.equal(own[name], others[name]) for name in names)


def test_a_start_that_is_gone_or_damaged_is_one_line(spec: Spec, data: SharedData) -> None:
    trial = next(trial for trial in trials(spec) if trial.init == "teacher-refit")
    name, store = data.of(trial).start, Store(data.store_url)
    assert name is not None
    whole = store.read(name)
    store.delete(name)
    with pytest.raises(FeatureError, match=f"{name} is gone: the same command makes it again$"):
        first(spec, data, trial)
    for damaged in (whole[:-7] + bytes(7), whole[:100], b""):
        store.replace(name, damaged)
        with pytest.raises(FeatureError, match=rf"{name}: damaged \(.*: the same command makes it again$") as raised:
            first(spec, data, trial)
        assert "\n" not in str(raised.value)
    store.replace(name, whole)
    first(spec, data, trial)
