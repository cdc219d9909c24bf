"""Makes a specification's search space, and with the method `grid` its list of trials (pure).

The order is part of the design. Students come smallest first and take turns, so that any number of trials is spread
evenly over them. A student's controls come before its distilled trials, which must be better than they at a rung. A
student whose first weights are made of its teacher has controls of several starts, see `Spec.control_starts`: they tell
apart what the start is worth and what the distillation. The combinations of a teacher and a loss are rotated by one
from student to student, so that every teacher and every loss occurs early. A shorter sweep is a prefix of a longer one.

Replicates of a configuration follow each other. They differ only in the seed of the initial weights, of the order of
the crops and of the quantisation noise. The crops themselves are the same.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.spec.loss import Loss
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.messages import SpecError
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial

Shape = tuple[str, int, int, int, int, str]


class Configuration(NamedTuple):
    """What the replicates of a configuration share."""

    student: Student
    teacher: str | None  # None: a control
    loss: Loss
    label: str  # of teacher and loss, in a trial's id
    start_of: str | None = None  # of a control: the teacher that its first weights are made of


def trials(spec: Spec) -> tuple[Trial, ...]:
    """The trials that are known beforehand, in the order they run: all with the method grid, else the controls.

    All first replicates have the specification's seed, all second ones the next seed, and so on. Equal seeds see the
    same crops in the same order, so a distilled trial differs from its control by the distillation alone.

    Raises:
        SpecError: with the method grid, the search space has fewer trials than `spec.trials`.
    """
    space, count = combinations(spec), spec.search.replicates
    if spec.search.method != "grid":
        space = [configuration for configuration in space if configuration.teacher is None]
    elif spec.trials > len(space) * count:
        instead = f"at most {len(space) * count}, the size of the search space"
        raise SpecError([f"trials: {spec.trials} is not allowed: {instead}"])
    numbers = range(1, min(spec.trials, len(space) * count) + 1)
    return tuple(numbered(spec, number, space[(number - 1) // count]) for number in numbers)


def reachable(spec: Spec) -> tuple[Trial, ...]:
    """Trials that together need all networks, taps and complexities that any trial of the sweep may need.

    With the method grid these are the sweep's trials; else one for every combination, with the lowest ranged weights.
    """
    if spec.search.method == "grid":
        return trials(spec)
    space = enumerate(combinations(spec), start=1)
    return tuple(numbered(spec, number, configuration) for number, configuration in space)


def combinations(spec: Spec) -> list[Configuration]:
    """The whole space in the order of the grid, with the lowest ranged weights."""
    controls, distilled = _arms(spec)
    queues = []
    for position, student in enumerate(by_size(spec)):
        first = position % max(1, len(distilled))
        arms = (*distilled[first:], *distilled[:first])
        teachers = spec.teachers_of(student)
        queue = [Configuration(student, teacher, loss, label) for teacher, loss, label in arms if teacher in teachers]
        queues.append([*_controls_of(spec, student, controls), *queue])
    turns = itertools.zip_longest(*queues)
    return [configuration for turn in turns for configuration in turn if configuration is not None]


def by_size(spec: Spec) -> list[Student]:
    """The students, smallest first."""
    return sorted(spec.students, key=lambda student: (student.width, *_shape(student)[2:], student.family))


def numbered(
    spec: Spec, number: int, configuration: Configuration, choices: Mapping[str, int | float | str] | None = None
) -> Trial:
    """The trial of a configuration.

    Args:
        spec: of the sweep.
        number: of the trial, from 1, in the order in which trials are given out.
        configuration: of the trial.
        choices: that a sampler made, by their names.
    """
    student, teacher, loss, label, start_of = configuration
    seed = spec.seed + (number - 1) % spec.search.replicates
    digits = max(2, len(str(spec.trials)))
    name = _student_names(spec)[_shape(student)]
    trial = Trial(
        trial_id=f"{number:0{digits}d}-{name}-{label}" + (f"-s{seed}" if spec.search.replicates > 1 else ""),
        student=student,
        teacher=teacher,
        loss=loss,
        seed=seed,
        choices=dict(choices or {}),
    )
    of_teacher = trial.init in ("teacher-slice", "teacher-refit") or trial.inherits
    return trial.model_copy(update={"start_of": teacher or start_of}) if of_teacher else trial


def number_of(trial_id: str) -> int:
    """The number that `numbered` gave a trial."""
    return int(trial_id.partition("-")[0])


def labelled(spec: Spec) -> list[tuple[int, LossSpace, str]]:
    """The losses that read features of a teacher: index in `spec.losses`, loss, and label in a trial's id."""
    presets = Counter(loss.preset for loss in spec.losses)
    return [
        (index, loss, _label(loss, index + 1, alone=presets[loss.preset] == 1))
        for index, loss in enumerate(spec.losses)
        if not loss.lowest.is_control
    ]


def arm_label(teacher: str, loss: str) -> str:
    """The label of a teacher and a loss, with characters that are safe in file names."""
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', teacher)}-{loss}"


def _controls_of(spec: Spec, student: Student, controls: Sequence[tuple[Loss, str]]) -> Iterator[Configuration]:
    """A student's controls: each of `controls` (loss, label), from each of the student's starts."""
    several = len(spec.teachers_of(student)) > 1
    for loss, label in controls:
        starts = spec.control_starts(student, loss)
        for start, teacher in starts:
            name = label if start is None or len(starts) == 1 else f"{label}-{start.removeprefix('teacher-')}"
            name = arm_label(teacher, name) if teacher is not None and several else name
            started = loss if start is None else loss.model_copy(update={"start": start})
            yield Configuration(student, None, started, name, start_of=teacher)


def _arms(spec: Spec) -> tuple[list[tuple[Loss, str]], list[tuple[str, Loss, str]]]:
    """Controls (loss, label) and distilled combinations (teacher, loss, label); consecutive combinations differ in the
    teacher and in the loss."""
    labels = ("control" if turn == 0 else f"control{turn + 1}" for turn in range(len(spec.plain_losses)))
    controls = list(zip(spec.plain_losses, labels, strict=True))
    weighted = labelled(spec)
    distilled = []
    for combination in range(len(spec.teachers) * len(weighted)):
        turn, index = divmod(combination, len(spec.teachers))
        teacher = spec.teachers[index].name
        _, loss, label = weighted[(turn + index) % len(weighted)]
        distilled.append((teacher, loss.lowest, arm_label(teacher, label)))
    return controls, distilled


def _label(loss: LossSpace, number: int, *, alone: bool) -> str:
    if loss.preset is None:
        return f"w{number}"
    return loss.preset if alone else f"{loss.preset}-w{number}"


def _shape(student: Student) -> Shape:
    return student.family, student.N, student.M, student.Z or 0, student.encoder_N or 0, student.half or ""


def _student_names(spec: Spec) -> dict[Shape, str]:
    """Shape -> short name; all but family and N are in it only where students have these in common. A half of a shelf
    is named by what it is and its own N."""
    shapes = {_shape(student) for student in spec.students}
    same = Counter((family, width) for family, width, *_, half in shapes if not half)
    names = {}
    for family, N, M, Z, E, half in shapes:
        name = f"{half}-n{E if half == 'encoder' else N}" if half else f"{family}-n{N}"
        if not half and same[family, N] > 1:
            name += f"-m{M}" + (f"-z{Z}" if Z else "") + (f"-e{E}" if E else "")
        names[family, N, M, Z, E, half] = name
    return names
