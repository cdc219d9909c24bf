"""The networks that a specification names: fetched from the zoo, and checked against each other before any work starts.

Nothing here imports torch: a weights file describes itself.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.weights import WeightsDescription, WeightsError, read_metadata
from orchestrator.spec.loss import Phase
from orchestrator.spec.messages import SpecError
from orchestrator.spec.section import refusal
from orchestrator.spec.sections import STARTS, Half, HalfNetwork, Inherited, Part, RateLadderSection, Student
from orchestrator.spec.spec import Spec
from orchestrator.spec.terms import TERMS
from orchestrator.spec.trial import Trial

OTHER_HALF: dict[Half, Inherited] = {"encoder": "g_s", "decoder": "g_a"}
READ_OF: dict[Part, str] = {"g_a": "y", "g_s": "x_hat"}  # what a term reads of a transform
KERNEL, STRIDE = 5, 16  # of the convolution that gives y, and pixels a side of one of its elements
WIDTHS: dict[Inherited, str] = {"entropy": "Z", "g_a": "encoder_N", "g_s": "N"}  # that a part's form depends on


def with_zoo_files(spec: Spec, folder: str | Path) -> Spec:
    """The specification with each `zoo:NAME` replaced by the weights file that it was converted to.

    Args:
        folder: where those files are kept; every node must see it.

    Raises:
        WeightsError: the zoo has no such network, or it cannot be downloaded.
    """
    teachers = [
        teacher.model_copy(update={"weights": _fetched(teacher.weights.removeprefix("zoo:"), spec.rate_ladder, folder)})
        if teacher.weights.startswith("zoo:")
        else teacher
        for teacher in spec.teachers
    ]
    return spec.model_copy(update={"teachers": tuple(teachers)})


def with_halves(spec: Spec) -> Spec:
    """The specification with its encoders and decoders written out as students: all but that half is the teacher's.

    Raises:
        SpecError: there is not one teacher, or a half does not fit it.
        WeightsError: the teacher's file is not a weights file.
    """
    written_out = [(f"students.{i}", student) for i, student in enumerate(spec.students) if student.half]
    if not spec.encoders and not spec.decoders and not written_out:
        return spec
    if len(spec.teachers) != 1:
        names = [teacher.name for teacher in spec.teachers]
        raise SpecError([refusal("teachers", names, "one, whose latent space encoders and decoders share")])
    teacher = read_metadata(spec.teachers[0].weights)
    given: list[tuple[Half, tuple[HalfNetwork, ...]]] = [("encoder", spec.encoders), ("decoder", spec.decoders)]
    new = [
        (f"{half}s.{index}", _half(half, network, teacher))
        for half, networks in given
        for index, network in enumerate(networks)
    ]
    problems = [line for field, student in (*written_out, *new) for line in _half_problems(field, student, teacher)]
    if teacher.kind != spec.rate_ladder.kind:
        problems.append(refusal("rate_ladder.kind", spec.rate_ladder.kind, f"{teacher.kind}, the teacher's"))
    if problems:
        raise SpecError(problems)
    students = (*spec.students, *(student for _, student in new))
    return spec.model_copy(update={"students": students, "encoders": (), "decoders": ()})


def _half(half: Half, network: HalfNetwork, teacher: WeightsDescription) -> Student:
    """The student that trains one half, between its teacher's other parts."""
    return Student(
        family=network.family,
        N=teacher.N if half == "encoder" else network.N,
        encoder_N=network.N if half == "encoder" else teacher.encoder_N,
        M=teacher.M,
        Z=teacher.Z,
        inherit=("entropy", OTHER_HALF[half]),
        half=half,
    )


def _half_problems(field: str, student: Student, teacher: WeightsDescription) -> Iterator[str]:
    """What is wrong with a half; `field` is where it is written."""
    assert student.half is not None
    if student.family != teacher.family:
        yield refusal(f"{field}.family", student.family, f"{teacher.family}, the teacher's")
    own = teacher.encoder_N if student.half == "encoder" else teacher.N
    if student.width >= own:
        yield refusal(
            f"{field}.N", student.width, f"less than {own}, the teacher's own, which is on the shelf by itself"
        )
    if {*student.inherit} != {"entropy", OTHER_HALF[student.half]}:
        instead = f"entropy and {OTHER_HALF[student.half]}, all that is not the {student.half}"
        yield refusal(f"{field}.inherit", list(student.inherit), instead)


def with_inherited(spec: Spec) -> Spec:
    """The specification with what a student inherits written out: `teachers`, `Z` and `encoder_N`.

    A student that inherits a part learns from the teachers that have it in its form: its family, M, and its Z or
    encoder_N where these are given.

    Raises:
        SpecError: no teacher has, or those that have differ in what is not given.
        WeightsError: a teacher's file is not a weights file.
    """
    described = {teacher.name: read_metadata(teacher.weights) for teacher in spec.teachers}
    problems: list[str] = []
    students = []
    for index, student in enumerate(spec.students):
        if not student.inherit:
            students.append(student)
            continue
        fixed = [name for part, name in WIDTHS.items() if part in student.inherit]
        wanted = {name: getattr(student, name) for name in ("family", "M", *fixed)}
        given = {name: value for name, value in wanted.items() if value is not None} | {"kind": spec.rate_ladder.kind}
        fitting = [
            name
            for name in spec.teachers_of(student)
            if all(getattr(described[name], field) == value for field, value in given.items())
        ]
        found = {name: {getattr(described[teacher], name) for teacher in fitting} for name in fixed}
        if not fitting:
            shape = ", ".join(f"{name} {value}" for name, value in given.items())
            problems.append(
                refusal(f"students.{index}.inherit", list(student.inherit), f"with a teacher of {shape}; there is none")
            )
        for name, values in found.items():
            if len(values) > 1:
                instead = f"one of {sorted(values)}, the fitting teachers'"
                problems.append(refusal(f"students.{index}.{name}", getattr(student, name), instead))
        widths = {name: min(values) for name, values in found.items() if values}
        students.append(student.model_copy(update={**widths, "teachers": tuple(fitting)}))
    if problems:
        raise SpecError(problems)
    return spec.model_copy(update={"students": tuple(students)})


def zoo_folder(spec: Spec) -> Path:
    """Where zoo files are kept: next to the runs if these are local. Every node must see it."""
    return Path("runs" if "://" in spec.results else spec.results).absolute() / "zoo"


def check_networks(spec: Spec, trials: Sequence[Trial]) -> None:
    """Checks that each weights file fits the ladder and the student that uses it.

    Raises:
        SpecError: one line for each that does not.
        WeightsError: a file is not a weights file.
    """
    problems = [*_teacher_problems(spec, trials), *_student_problems(spec)]
    if problems:
        raise SpecError(problems)


def _fetched(name: str, rates: RateLadderSection, folder: str | Path) -> str:
    """The converted weights file, made by a process of its own: it needs torch, which a driver does not import."""
    arguments = [name, str(folder), rates.distortion, *map(str, rates.lambdas)]
    command = [sys.executable, "-W", "ignore", "-m", "models.zoo", "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WeightsError((done.stderr.strip().splitlines() or [f"zoo:{name}: exit code {done.returncode}"])[-1])
    return done.stdout.strip().splitlines()[-1]


def _teacher_problems(spec: Spec, trials: Sequence[Trial]) -> Iterator[str]:
    for index, teacher in enumerate(spec.teachers):
        field, described = f"teachers.{index}.weights", read_metadata(teacher.weights)
        yield from _distortion_problems(field, teacher.weights, described, spec)
        yield from _lambda_problems(field, teacher.weights, described, spec)
        for trial in trials:
            if trial.teacher == teacher.name:
                yield from (f"{trial.trial_id}: {problem}" for problem in _loss_problems(spec, trial, described))


def _loss_problems(spec: Spec, trial: Trial, teacher: WeightsDescription) -> Iterator[str]:
    loss, student = trial.loss, trial.student
    for index, phase in enumerate(loss.schedule):
        yield from (f"phases.{index}.{problem}" for problem in _apart_problems(phase, student))
    if loss.preset == "prim-hybrid" and teacher.kind != "fixed-lambda":
        instead = f"one with two fixed-lambda teachers, while {trial.teacher} is {teacher.kind}: one z for all rates"
        yield refusal("preset", loss.preset, instead)
    sizes = f"the student's M is {student.M} and {trial.teacher}'s {teacher.M}"
    if loss.apart and teacher.M != student.M and loss.widths != "top-entropy":
        yield refusal("widths", loss.widths, f"top-entropy with modules apart, since {sizes}")
    if trial.init == "teacher-refit" and (teacher.kind != spec.rate_ladder.kind or teacher.M < student.M):
        instead = f"another start: {trial.teacher} is {teacher.kind} with M {teacher.M}, the student's is {student.M}"
        yield refusal("start", trial.init, instead)
    elif trial.init == "teacher-refit" and teacher.M > student.M and (loss.apart or loss.widths == "top-entropy"):
        leading = f"its latents are {trial.teacher}'s leading channels"
        yield refusal("start", trial.init, f"another start where channels are chosen by entropy: {leading}")
    if trial.init == "teacher-refit" and student.family in ("hyperprior", "mean-scale"):
        weights = KERNEL**2 * (student.encoder_N or student.N) + 1  # of each of y's channels
        least = -(-weights // (spec.crops.size // STRIDE) ** 2)
        if loss.refit.crops < least:
            instead = (
                f"at least {least} crops of {spec.crops.size} pixels, to fit the {weights} weights of a channel of y"
            )
            yield refusal("refit.crops", loss.refit.crops, instead)
    if loss.widths == "top-entropy" and teacher.M < student.M:
        yield refusal("widths", loss.widths, f"map, since {sizes}")


def _apart_problems(phase: Phase, student: Student) -> Iterator[str]:
    """In a phase apart something is trained, and a transform that is trained alone has a term that reads it."""
    if not phase.apart:
        return
    trained = READ_OF.keys() - phase.frozen - student.frozen
    terms = {TERMS[name].reads for name in phase.weights.of_teacher}
    terms |= {"x_hat"} if phase.weights.rate_distortion else set()
    if not trained:
        yield refusal(
            "freeze", sorted({*phase.freeze, *student.frozen}), "g_a or g_s left to be trained in a phase apart"
        )
    elif len(trained) == 1 and READ_OF[alone := min(trained)] not in terms:
        instead = f"a weight of a term that reads {READ_OF[alone]}: {alone} alone is trained"
        yield refusal("weights", sorted(phase.weights.of_teacher), instead)


def _student_problems(spec: Spec) -> Iterator[str]:
    for index, student in enumerate(spec.students):
        if student.init in STARTS:
            continue
        field, described = f"students.{index}.init", read_metadata(student.init)
        yield from _distortion_problems(field, student.init, described, spec)
        actual = {name: getattr(described, name) for name in ("family", "N", "M", "Z", "encoder_N", "kind")}
        wanted = _network_of(student) | {"kind": spec.rate_ladder.kind}
        if actual != wanted:
            yield f"{field}: {student.init} is {actual}; the student is {wanted}"
        else:
            yield from _lambda_problems(field, student.init, described, spec)


def _distortion_problems(field: str, path: str, described: WeightsDescription, spec: Spec) -> Iterator[str]:
    wanted = spec.rate_ladder.distortion
    if described.distortion != wanted:
        yield f"{field}: {path} was trained for {described.distortion}; allowed is that of rate_ladder, {wanted}"


def _lambda_problems(field: str, path: str, described: WeightsDescription, spec: Spec) -> Iterator[str]:
    wanted = spec.rate_ladder.lambdas
    if not _equal(described.lambdas, wanted):
        yield (
            f"{field}: the lambdas of {path} are {list(described.lambdas)}; "
            f"allowed are those of rate_ladder, {list(wanted)}"
        )


def _network_of(student: Student) -> dict[str, object]:
    return {"family": student.family, "N": student.N, "M": student.M, "Z": student.Z or student.N} | {
        "encoder_N": student.encoder_N or student.N
    }


def _equal(actual: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether lambdas are equal up to rounding."""
    return len(actual) == len(wanted) and all(
        math.isclose(lmbda, wanted_lmbda, rel_tol=1e-6) for lmbda, wanted_lmbda in zip(actual, wanted, strict=True)
    )
