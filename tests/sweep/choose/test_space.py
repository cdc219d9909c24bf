from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator.spec.loss_space import LossSpace, Range
from orchestrator.spec.messages import SpecError
from orchestrator.spec.sections import Photographs, SearchSection, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.choose.space import reachable, trials

LOSSES = (LossSpace(latent=0.1), LossSpace(reconstruction=0.5), LossSpace(latent=0.1, reconstruction=0.5))


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "name": "t",
        "trials": 12,
        "photographs": Photographs(train="a", validation="b"),
        "teachers": (
            Teacher(name="hyper", weights="h.safetensors"),
            Teacher(name="mean-scale", weights="m.safetensors"),
        ),
        "students": tuple(Student(family="hyperprior", N=n, M=96) for n in (32, 8, 24, 16)),
        "losses": LOSSES,
    }
    return Spec(**(fields | changes))


def test_smallest_first_in_turns_with_the_controls_ahead() -> None:
    plan = trials(spec())
    assert [trial.student.N for trial in plan] == [8, 16, 24, 32] * 3
    assert [trial.teacher for trial in plan[:4]] == [None] * 4
    assert all(trial.loss.is_control for trial in plan[:4]) and all(not trial.loss.is_control for trial in plan[4:])
    assert plan[0].trial_id == "01-hyperprior-n8-control"
    assert plan[4].trial_id == "05-hyperprior-n8-hyper-w1"
    assert plan[5].trial_id == "06-hyperprior-n16-mean-scale-w2"


def test_every_teacher_and_every_loss_occurs_early() -> None:
    plan = trials(spec())
    assert {trial.teacher for trial in plan[4:8]} == {"hyper", "mean-scale"}
    assert {trial.loss for trial in plan[4:]} == {loss.lowest for loss in LOSSES}
    for width in (8, 16, 24, 32):
        assert {trial.teacher for trial in plan if width == trial.student.N} == {None, "hyper", "mean-scale"}


def test_the_whole_space_has_every_combination_once() -> None:
    plan = trials(spec(trials=28))
    combinations = Counter((trial.student.N, trial.teacher, trial.loss) for trial in plan)
    assert len(combinations) == 4 * (1 + 2 * 3) and set(combinations.values()) == {1}
    assert len({trial.trial_id for trial in plan}) == 28
    with pytest.raises(SpecError, match="trials: 29 is not allowed: at most 28"):
        trials(spec(trials=29))


def test_a_shorter_sweep_is_a_prefix() -> None:
    assert trials(spec(trials=7)) == trials(spec(trials=20))[:7]


def test_without_controls_and_with_weights_that_do_not_distil() -> None:
    assert all(trial.teacher for trial in trials(spec(controls=False)))
    plain = trials(spec(controls=False, losses=(*LOSSES, LossSpace(rate_distortion=2.0))))
    assert [(trial.teacher, trial.loss.rate_distortion) for trial in plain[:5]] == [(None, 2.0)] * 4 + [("hyper", None)]


def test_the_latent_width_is_named_where_it_tells_students_apart() -> None:
    students = tuple(Student(family="hyperprior", N=8, M=m) for m in (96, 48))
    assert [trial.trial_id for trial in trials(spec(students=students, trials=2))] == [
        "01-hyperprior-n8-m48-control",
        "02-hyperprior-n8-m96-control",
    ]


def test_replicates_follow_each_other() -> None:
    plan = trials(spec(search=SearchSection(replicates=3), seed=7))
    assert [trial.trial_id for trial in plan[:4]] == [
        *(f"0{i}-hyperprior-n8-control-s{6 + i}" for i in (1, 2, 3)),
        "04-hyperprior-n16-control-s7",
    ]
    assert [trial.seed for trial in plan] == [7, 8, 9] * 4
    configurations = [(trial.student, trial.teacher, trial.loss) for trial in plan[::3]]
    assert configurations == [(trial.student, trial.teacher, trial.loss) for trial in trials(spec(trials=4))]
    with pytest.raises(SpecError, match="trials: 87 is not allowed: at most 84"):
        trials(spec(search=SearchSection(replicates=3), trials=87))


def test_what_a_search_may_need_is_known_beforehand() -> None:
    """With the grid, what its trials need; else every student with every teacher and every loss."""
    assert reachable(spec()) == trials(spec())
    ranged = (LossSpace(latent=Range(low=0.1, high=1.0)), LossSpace(hyper_latent=0.1), LossSpace(preset="feds"))
    drawn = spec(search=SearchSection(method="tpe"), losses=ranged)
    assert [trial.teacher for trial in trials(drawn)] == [None] * 4
    needed = reachable(drawn)
    assert len({(trial.student, trial.teacher, trial.loss) for trial in needed}) == len(needed) == 4 * (1 + 2 * 3)
    assert {trial.loss for trial in needed if trial.teacher} == {loss.lowest for loss in ranged}


def sliced(**changes: Any) -> Spec:
    """Two students that start from a teacher's leading channels, and one that does not."""
    students = [Student(family="hyperprior", N=n, M=96, init="teacher-slice") for n in (8, 16)]
    return spec(students=(*students, Student(family="hyperprior", N=24, M=96)), **changes)


@pytest.mark.parametrize("replicates", [1, 2])
def test_every_distilled_trial_has_a_control_of_its_own_start(replicates: int) -> None:
    plan = trials(sliced(trials=29 * replicates, search=SearchSection(replicates=replicates)))
    controls = Counter((trial.student, trial.init, trial.start_of, trial.seed) for trial in plan if not trial.teacher)
    assert set(controls.values()) == {1}
    for student in sliced().students:
        starts = {(init, teacher) for of, init, teacher, _ in controls if of == student}
        of_teachers = {(init, name) for init in ("teacher-slice", "teacher-refit") for name in ("hyper", "mean-scale")}
        assert starts == {("random", None)} | (of_teachers if student.N < 24 else set())
        kinds = [trial.teacher is None for trial in plan if trial.student == student]
        assert kinds == sorted(kinds, reverse=True)  # its controls come first
    distilled = [trial for trial in plan if trial.teacher]
    assert {(trial.student, trial.init, trial.start_of, trial.seed) for trial in distilled} <= controls.keys()
    assert all(trial.start_of in (None, trial.teacher) for trial in distilled)


def test_a_control_is_named_after_its_start_where_there_are_several() -> None:
    of_smallest = [trial.trial_id for trial in trials(sliced(trials=29)) if trial.student.N == 8 and not trial.teacher]
    assert of_smallest == [
        "01-hyperprior-n8-hyper-control-refit",
        "04-hyperprior-n8-mean-scale-control-refit",
        "07-hyperprior-n8-hyper-control-slice",
        "10-hyperprior-n8-mean-scale-control-slice",
        "13-hyperprior-n8-control-random",
    ]
    one = trials(sliced(trials=5, teachers=(Teacher(name="hyper", weights="h.safetensors"),)))
    assert [trial.trial_id for trial in one if trial.student.N == 8] == [
        "01-hyperprior-n8-control-refit",
        "04-hyperprior-n8-control-slice",
    ]
    assert one[2].trial_id == "03-hyperprior-n24-control"


def test_a_search_begins_with_a_control_for_each_start() -> None:
    drawn = sliced(trials=14, search=SearchSection(method="random"))
    assert Counter(trial.init for trial in trials(drawn)) == {"random": 3, "teacher-slice": 4, "teacher-refit": 4}
    search = Search(drawn)
    given = list(iter(search.ask, None))
    assert [trial.teacher for trial in given[:11]] == [None] * 11
    assert all(trial.start_of == (trial.teacher if trial.student.N < 24 else None) for trial in given[11:])


def test_a_start_of_a_loss_replaces_the_students() -> None:
    losses = (
        LossSpace(preset="prim-l1", start="random"),
        LossSpace(preset="prim-l1-inherit"),
        LossSpace(latent=0.1),
    )
    student = Student(family="hyperprior", N=8, M=96, init="teacher-slice", inherit=("entropy",))
    plan = trials(spec(trials=11, students=(student,), losses=losses))
    found = {(trial.loss.preset, trial.init, trial.inherits) for trial in plan if trial.teacher}
    assert found == {
        ("prim-l1", "random", ()),
        ("prim-l1-inherit", "teacher-refit", ("entropy",)),
        (None, "teacher-slice", ("entropy",)),
    }
    assert Counter(trial.init for trial in plan if not trial.teacher) == {
        "random": 1,
        "teacher-slice": 2,
        "teacher-refit": 2,
    }


def test_a_control_with_a_start_of_its_own_has_no_other() -> None:
    student = Student(family="hyperprior", N=8, M=96)
    losses = (LossSpace(preset="inherit-plain"), LossSpace(preset="prim-l1-inherit"))
    plan = trials(spec(trials=4, students=(student,), losses=losses))
    assert [(trial.init, trial.start_of) for trial in plan if not trial.teacher] == [
        ("teacher-refit", "hyper"),
        ("teacher-refit", "mean-scale"),
    ]


def test_a_student_learns_from_its_own_teachers_alone() -> None:
    students = (Student(family="hyperprior", N=8, M=96, teachers=("hyper",)), Student(family="hyperprior", N=16, M=96))
    whole = spec(trials=11, students=students)
    assert list(whole.problems()) == []
    assert {trial.teacher for trial in trials(whole) if trial.student.N == 8} == {None, "hyper"}
    assert {trial.teacher for trial in trials(whole) if trial.student.N == 16} == {None, "hyper", "mean-scale"}
    for method in ("random", "tpe", "nsga2"):
        given = list(iter(Search(spec(trials=11, students=students, search=SearchSection(method=method))).ask, None))
        assert Counter((trial.student.N, trial.teacher) for trial in given) == {
            (8, None): 1,
            (16, None): 1,
            (8, "hyper"): 3,  # though the students take turns
            (16, "hyper"): 3,
            (16, "mean-scale"): 3,
        }
    wrong = spec(students=(students[0].model_copy(update={"teachers": ("hypre",)}),))
    assert next(wrong.problems()).startswith("students.0.teachers: 'hypre' is not allowed: hyper")


def test_the_size_of_the_space_counts_a_control_for_each_start() -> None:
    assert list(sliced(trials=29).problems()) == []
    (line,) = sliced(trials=30).problems()
    assert line.endswith("at most 29: 3 students x 2 teachers x 3 losses + 11 controls, one a start")
