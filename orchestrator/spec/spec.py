"""The sweep specification: typed, strict, values only.

A specification is a YAML file. `load_spec` turns it, with overrides from the command line, into a frozen `Spec`, or
raises `SpecError` with one line for each problem: the field, the value and what is allowed. Only `check_paths`
reads a disk: it checks that what a specification names exists. Nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from orchestrator.caches import default_folder
from orchestrator.spec.loss import Loss
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.messages import SpecError, counted, one_of, shown
from orchestrator.spec.paths import absolute, kept, missing_folders
from orchestrator.spec.section import Section, refusal
from orchestrator.spec.sections import (
    MINIMUM_RATE_POINTS,
    STARTS,
    Axis,
    Crops,
    EarlyStopping,
    HalfNetwork,
    Name,
    NodeCacheSection,
    Photographs,
    Preemption,
    RateLadderSection,
    SearchSection,
    Shelf,
    Start,
    StoreUrl,
    Student,
    Teacher,
    Training,
    Validation,
)
from orchestrator.spec.terms import TERMS


class Spec(Section):
    """A sweep's specification."""

    name: Name  # of the run folder, results/name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    trials: Annotated[int, Field(ge=1)]  # how many of the search space's trials are run
    # Trials without distillation: of each student from the start that its distilled trials have; if that is made of a
    # teacher, also from a random one, a slice of the teacher, and the refitted one, so that the report can tell apart
    # what the start is worth and what the losses are.
    controls: bool = True
    photographs: Photographs
    crops: Crops = Crops()
    validation: Validation = Validation()
    rate_ladder: RateLadderSection = RateLadderSection()
    teachers: Annotated[tuple[Teacher, ...], Field(min_length=1)]
    students: tuple[Student, ...] = ()
    # Instead of students, or beside them: each is trained by itself, between the teacher's other parts. All pairs of an
    # encoder and a decoder are networks then; see `shelf`.
    encoders: tuple[HalfNetwork, ...] = ()
    decoders: tuple[HalfNetwork, ...] = ()
    shelf: Shelf = Shelf()
    # see orchestrator/spec/loss.py; a weight may be a range to draw from, such as {low: 0.003, high: 3.0}
    losses: Annotated[tuple[LossSpace, ...], Field(min_length=1)]
    search: SearchSection = SearchSection()
    training: Training = Training()
    early_stopping: EarlyStopping = EarlyStopping()
    preemption: Preemption = Preemption()
    concurrent_trials: Annotated[int | None, Field(ge=1)] = None  # at most so many at a time; null: as many as fit
    candidates: Annotated[int, Field(ge=1)] = 6  # at most so many trials are coded with real bitstreams
    # of the front, beside BD-rate: what a network costs, lower is better on each
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)] = ("macs_per_pixel",)
    store: StoreUrl = "runs/store"  # path or URL (file, s3) of the feature cache
    node_cache: NodeCacheSection = NodeCacheSection()
    results: StoreUrl = "runs"  # path or URL (file, s3); the run folder is results/name

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        return _problems_across(self)

    def weights_of(self, teacher: str) -> str:
        """The weights file of the teacher of this name. Raises StopIteration: no such teacher."""
        return next(entry.weights for entry in self.teachers if entry.name == teacher)

    def teachers_of(self, student: Student) -> tuple[str, ...]:
        """The teachers that a student learns from."""
        return tuple(teacher.name for teacher in self.teachers) if student.teachers is None else student.teachers

    @property
    def plain_losses(self) -> tuple[Loss, ...]:
        """The losses that controls are trained with: those given, else rate and distortion alone if asked for."""
        given = tuple(loss.lowest for loss in self.losses if loss.lowest.is_control)
        return given or ((Loss(preset="none"),) if self.controls else ())

    def control_starts(self, student: Student, control: Loss) -> tuple[tuple[Start | None, str | None], ...]:
        """The starts of a student's controls: `Loss.start`, and the teacher that it is made of (None: of none).

        The most promising one first, so that early stopping can end the others. A half of a shelf has none.

        Args:
            control: the loss that they are trained with; if it asks for a start, there is no other.
        """
        if student.half is not None:
            return ()
        distilled = [loss.lowest for loss in self.losses if not loss.lowest.is_control]
        inits = {loss.init_of(student) for loss in distilled} or {student.init}
        of_teacher = bool(inits & {"teacher-slice", "teacher-refit"})
        found: list[tuple[Start | None, str | None]] = []
        if student.init not in STARTS and student.init in inits:
            found += [(None, teacher) for teacher in (self.teachers_of(student) if student.inherit else (None,))]
        if of_teacher:
            starts: tuple[Start, ...] = ("teacher-refit", "teacher-slice")
            found += [(start, teacher) for start in starts for teacher in self.teachers_of(student)]
        if of_teacher or "random" in inits:
            found.append(("random", None))
        if control.own_start in ("teacher-slice", "teacher-refit"):
            return tuple((control.own_start, teacher) for teacher in self.teachers_of(student))
        return tuple(found) if control.own_start is None else ((control.own_start, None),)

    @classmethod
    def written_out(cls, data: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Replaces a loss that is written as a preset's name."""
        losses = data.get("losses")
        if not isinstance(losses, list):
            return data
        written_out: list[JsonValue] = [{"preset": loss} if isinstance(loss, str) else loss for loss in losses]
        return {**data, "losses": written_out}

    def resolved(self, base: str | Path) -> Spec:
        """The same specification with every local path absolute: relative ones from `base`, ~ is the home folder.

        Raises SpecError: there is no home folder for a ~.
        """
        data = self.model_dump()
        places = {"photographs": ("train", "validation"), "node_cache": ("folder",)}
        for section, fields in ((data, ("store", "results")), *((data[name], places[name]) for name in places)):
            section.update({field: absolute(section[field], base) for field in fields})
        if self.node_cache.folder == NodeCacheSection().folder:
            data["node_cache"]["folder"] = str(default_folder())
        for teacher in data["teachers"]:
            teacher["weights"] = absolute(teacher["weights"], base)
        for student in data["students"]:
            student["init"] = absolute(student["init"], base)
        return Spec.model_validate(data)


def check_paths(spec: Spec) -> None:
    """Raises SpecError unless all that the specification reads exists, and what it writes stays where it is written."""
    problems = [*kept("results", spec.results), *kept("store", spec.store), *missing_folders(spec.photographs)]
    files = [(f"teachers.{i}.weights", teacher.weights) for i, teacher in enumerate(spec.teachers)]
    files += [(f"students.{i}.init", student.init) for i, student in enumerate(spec.students)]
    problems += [
        f"{field}: {shown(name)} is not allowed: a file that exists"
        for field, name in files
        if not name.startswith("zoo:") and name not in STARTS and not Path(name).is_file()
    ]
    if problems:
        raise SpecError(problems)


def _problems_across(spec: Spec) -> Iterator[str]:
    """What is wrong between fields that are each valid by themselves."""
    training, rate_points = spec.training, len(spec.rate_ladder.lambdas)
    if rate_points < MINIMUM_RATE_POINTS:
        least = f"at least {MINIMUM_RATE_POINTS} of them, since BD-rate needs a curve"
        yield refusal("rate_ladder.lambdas", spec.rate_ladder.lambdas, least)
    yield from (f"rate_ladder.{problem}" for problem in spec.rate_ladder.problems())
    yield from spec.rate_ladder.side_problems("crops.size", spec.crops.size)
    yield from spec.rate_ladder.side_problems("validation.size", spec.validation.size)
    yield from training.problems()
    for i, student in enumerate(spec.students):
        yield from (f"students.{i}.{problem}" for problem in student.problems())
    for i, loss_space in enumerate(spec.losses):
        yield from (f"losses.{i}.{problem}" for problem in loss_space.problems())
        if spec.search.method == "grid":
            number = "a number, since search.method is grid"
            yield from (refusal(f"losses.{i}.{name}", wide, number) for name, wide in loss_space.ranges.items())
        loss = loss_space.lowest
        inside = sorted(term for term in loss.terms if TERMS[term].at_stages)
        if inside and training.compile != "off":
            outside = f"off with losses.{i}, whose {one_of(inside)} reads inside g_a and g_s"
            yield refusal("training.compile", training.compile, outside)
        for term in sorted(loss.terms):
            index = loss.rate_point(term, rate_points)
            if index is not None and index >= rate_points:
                least = f"same or at most {rate_points - 1}, the index of the last lambda"
                yield refusal(f"losses.{i}.teacher_rate_point.{term}", index, least)
    yield from (f"early_stopping.{problem}" for problem in spec.early_stopping.problems())
    if spec.early_stopping.rule == "pause" and spec.search.method in ("tpe", "nsga2"):
        learns = f"another rule with search.method {spec.search.method}, which learns from trials that have ended"
        yield refusal("early_stopping.rule", "pause", learns)
    for i, rung in enumerate(spec.early_stopping.rungs):
        if rung % training.batch_size:
            batches = f"a multiple of training.batch_size, {training.batch_size}"
            yield refusal(f"early_stopping.rungs.{i}", rung, batches)
    batches = f"a batch of {training.batch_size} for each of {rate_points} lambdas"
    if spec.crops.count is not None and spec.crops.count < training.batch_size * rate_points:
        yield refusal("crops.count", spec.crops.count, f"at least {training.batch_size * rate_points}: {batches}")
    yield from _repeats("teachers.{}.name", [teacher.name for teacher in spec.teachers])
    for name in ("encoders", "decoders"):
        yield from _repeats(f"{name}.{{}}", [half.model_dump() for half in getattr(spec, name)])
    if not spec.students and not spec.encoders and not spec.decoders:
        yield refusal("students", list(spec.students), "at least one student, encoder or decoder")
    yield from _repeats("axes.{}", spec.axes)
    yield from _repeats("students.{}", [student.model_dump() for student in spec.students])
    yield from _repeats("losses.{}", [loss.model_dump(exclude_defaults=True) for loss in spec.losses])
    for i, student in enumerate(spec.students):
        for name in student.teachers or ():
            if name not in {teacher.name for teacher in spec.teachers}:
                yield refusal(f"students.{i}.teachers", name, one_of([teacher.name for teacher in spec.teachers]))
    yield from _space_problems(spec)
    if spec.store.rstrip("/") == f"{spec.results.rstrip('/')}/{spec.name}":
        yield refusal("name", spec.name, "another one, since results/name is the store")


def _space_problems(spec: Spec) -> Iterator[str]:
    """What is wrong with the number of trials."""
    plain = spec.plain_losses
    losses, controls = sum(not loss.lowest.is_control for loss in spec.losses), len(plain)
    all_controls = sum(len(spec.control_starts(student, loss)) for student in spec.students for loss in plain)
    halves = len(spec.encoders) + len(spec.decoders)
    students = len(spec.students) + halves
    pairs = sum(len(spec.teachers_of(student)) for student in spec.students) + halves
    space = (pairs * losses + all_controls) * spec.search.replicates
    if halves and not losses:
        field = [loss.model_dump(mode="json", exclude_defaults=True) for loss in spec.losses]
        yield refusal("losses", field, "one that reads a teacher's outputs, which encoders and decoders learn from")
    elif spec.trials % spec.search.replicates:
        yield refusal("trials", spec.trials, f"a multiple of search.replicates, {spec.search.replicates}")
    elif students and spec.trials > space and not any(loss.ranges for loss in spec.losses):
        of_all = counted(students, "student" if not halves else "network")
        distilled = f"{counted(pairs / students, 'teacher')} x {counted(losses, 'loss', 'losses')}"
        product = f"{of_all} x ({distilled} + {counted(controls, 'control')})"
        if halves:
            product = f"{of_all} x {distilled}" + (f" + {counted(all_controls, 'control')}" if all_controls else "")
        elif all_controls > students * controls:
            product = f"{of_all} x {distilled} + {counted(all_controls, 'control')}, one a start"
        product += f" x {spec.search.replicates} replicates" if spec.search.replicates > 1 else ""
        yield refusal("trials", spec.trials, f"at most {space}: {product}")


def _repeats(field: str, entries: Sequence[object]) -> Iterator[str]:
    for i, entry in enumerate(entries):
        first = entries.index(entry)
        if first < i:
            yield refusal(field.format(i), entry, f"each only once, and {field.format(first)} has this")
