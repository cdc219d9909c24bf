"""From a specification to its list of trials (pure).

The order is part of the design. Students come smallest first and take turns, so that any number of trials is spread
evenly over them; a student's control comes before its distilled trials, so that it sets the bar that they must pass
at a rung. Of the combinations of a teacher and loss weights, each student starts one further than the student
before it, so that every teacher and every loss occurs early. A shorter sweep is a prefix of a longer one.
"""

from __future__ import annotations

import re
from collections import Counter

from orchestrator.distill.phases import Loss
from orchestrator.spec import Spec, SpecError, Student, Trial

Arm = tuple[str | None, Loss, str]  # teacher's name (None: a control), loss, how a trial's id names the two


def trials(spec: Spec) -> tuple[Trial, ...]:
    """The first `spec.trials` trials of the search space, in the order they are run.

    All trials have the specification's seed: they see the same crops in the same order, so a distilled trial and
    its control differ by the distillation alone.

    Raises:
        SpecError: the search space has fewer trials than `spec.trials`.
    """
    students = sorted(spec.students, key=lambda student: (student.N, student.M, student.Z or 0, student.family))
    controls, distilled = _arms(spec)
    queues = []
    for position, student in enumerate(students):
        start = position % max(1, len(distilled))
        queues.append([(student, arm) for arm in (*controls, *distilled[start:], *distilled[:start])])
    rounds = range(max(len(queue) for queue in queues))
    space = [queue[turn] for turn in rounds for queue in queues if turn < len(queue)]
    if spec.trials > len(space):
        raise SpecError([f"trials: {spec.trials} is not allowed: at most {len(space)}, the size of the search space"])
    names = _student_names(students)
    digits = max(2, len(str(spec.trials)))
    return tuple(
        Trial(
            trial_id=f"{number:0{digits}d}-{names[_shape(student)]}-{label}",
            student=student,
            teacher=teacher,
            loss=loss,
            seed=spec.seed,
        )
        for number, (student, (teacher, loss, label)) in enumerate(space[: spec.trials], start=1)
    )


def _arms(spec: Spec) -> tuple[list[Arm], list[Arm]]:
    """Controls and distilled combinations; consecutive combinations differ in the teacher and in the weights."""
    plain = [loss for loss in spec.losses if loss.is_control] or ([Loss(preset="none")] if spec.controls else [])
    controls: list[Arm] = [
        (None, loss, "control" if turn == 0 else f"control{turn + 1}") for turn, loss in enumerate(plain)
    ]
    presets = Counter(loss.preset for loss in spec.losses)
    weighted = [
        (_label(loss, index, alone=presets[loss.preset] == 1), loss)
        for index, loss in enumerate(spec.losses, start=1)
        if not loss.is_control
    ]
    distilled: list[Arm] = []
    for combination in range(len(spec.teachers) * len(weighted)):
        turn, which = divmod(combination, len(spec.teachers))
        teacher = spec.teachers[which].name
        label, loss = weighted[(turn + which) % len(weighted)]
        distilled.append((teacher, loss, f"{re.sub(r'[^A-Za-z0-9._]+', '-', teacher)}-{label}"))
    return controls, distilled


def _label(loss: Loss, index: int, *, alone: bool) -> str:
    if loss.preset is None:
        return f"w{index}"
    return loss.preset if alone else f"{loss.preset}-w{index}"


def _shape(student: Student) -> tuple[str, int, int, int]:
    return student.family, student.N, student.M, student.Z or 0


def _student_names(students: list[Student]) -> dict[tuple[str, int, int, int], str]:
    """Short names; M and Z are named only where two students differ in nothing else."""
    shapes = {_shape(student) for student in students}
    same = Counter((family, width) for family, width, *_ in shapes)
    return {
        (family, N, M, Z): f"{family}-n{N}" + (f"-m{M}" + (f"-z{Z}" if Z else "") if same[family, N] > 1 else "")
        for family, N, M, Z in shapes
    }
