"""The anchor and the complexity of each class: measured once per sweep, and used for every trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.fill import answer_of
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.anchor import ANCHOR, COMPLEXITY, AnchorFile, Complexities
from orchestrator.results.files import read_file, write_file
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import measure_complexity, measure_teacher

Crops = Sequence[tuple[Photograph, Crop]]


class Measures(NamedTuple):
    """The anchor and the complexities of a sweep."""

    anchor: Anchor
    complexity: Mapping[str, Complexity]  # by complexity class


def saved_measures(run: Store) -> Measures | None:
    """The measures of an earlier start, from the run folder; None: not both were written. Raises FormatError."""
    anchor, complexities = read_file(run, ANCHOR, AnchorFile), read_file(run, COMPLEXITY, Complexities)
    return None if anchor is None or complexities is None else Measures(anchor.anchor, complexities.classes)


def measure(
    spec: Spec, students: Mapping[str, Student], crops: Crops, run: Store, say: Callable[[str], None]
) -> Measures:
    """Measure anchor and complexities, and write them into the run folder. Ray must run.

    The anchor is the best teacher's curve.

    Args:
        spec: of the sweep.
        students: complexity class -> a student of it.
        crops: of the validation photographs.
        run: the run folder.
        say: takes a line of progress.
    """
    rates = spec.rate_ladder
    tasks = [measure_teacher.remote(teacher.name, teacher.weights, crops, rates) for teacher in spec.teachers]
    *curves, complexity = map(answer_of, [*tasks, measure_complexity.remote(students, rates)])
    anchor, _ = min(curves, key=lambda curve: curve[1])
    costs = {curve.teacher: cost for curve, cost in curves}
    write_file(run, ANCHOR, AnchorFile(anchor=anchor, digest=anchor.digest, mean_log_lagrangian=costs))
    write_file(run, COMPLEXITY, Complexities(classes=complexity))
    others = ", ".join(f"{name} {cost:+.3f}" for name, cost in costs.items())
    say(f"anchor: teacher {anchor.teacher}, {len(anchor.curve)} points (mean ln J: {others})")
    return Measures(anchor, complexity)
