"""The anchor and the complexity of each class: measured once per sweep, and used for every trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.anchor import ANCHOR, COMPLEXITY, AnchorFile, Complexities
from orchestrator.results.files import read_file, write_file
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import TeacherCurve, measure_complexity, measure_teacher
from orchestrator.sweep.pending import Pending

Crops = Sequence[tuple[Photograph, Crop]]


class Measures(NamedTuple):
    """The anchor and the complexities of a sweep."""

    anchor: Anchor
    complexity: Mapping[str, Complexity]  # by complexity class


def saved_measures(run: Store) -> Measures | None:
    """The measures of an earlier start, from the run folder; None: not both were written. Raises FormatError."""
    anchor, complexities = read_file(run, ANCHOR, AnchorFile), read_file(run, COMPLEXITY, Complexities)
    return None if anchor is None or complexities is None else Measures(anchor.anchor, complexities.classes)


class Measuring:
    """Tasks that measure anchor and complexities, and write them into the run folder. Ray must run.

    The anchor is the best teacher's curve.

    Args:
        spec: of the sweep.
        students: complexity class -> a student of it.
        crops: of the validation photographs.
        run: the run folder.
        say: takes a line of progress.
        spent: takes the seconds of each task.
    """

    def __init__(
        self,
        spec: Spec,
        students: Mapping[str, Student],
        crops: Crops,
        run: Store,
        say: Callable[[str], None],
        spent: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._names, self._run, self._say, self._spent = [teacher.name for teacher in spec.teachers], run, say, spent
        self._curves: dict[str, TeacherCurve] = {}
        self._complexity: Mapping[str, Complexity] | None = None
        self.measures: Measures | None = None  # None: not all tasks have ended
        rates = spec.rate_ladder
        tasks: dict[Any, str | None] = {
            measure_teacher.remote(teacher.name, teacher.weights, crops, rates, spec.axes): teacher.name
            for teacher in spec.teachers
        }
        self.tasks = Pending({**tasks, measure_complexity.remote(students, rates, spec.axes): None}, self._take)

    def result(self) -> Measures:
        """Waits for all tasks. Raises what one of them raised."""
        self.tasks.wait()
        assert self.measures is not None
        return self.measures

    def _take(self, teacher: str | None, answer: Any) -> None:
        if teacher is None:
            self._complexity = answer
        else:
            self._curves[teacher] = answer
            self._spent(answer.seconds)
        if self._complexity is not None and len(self._curves) == len(self._names):
            self.measures = self._written(self._complexity)

    def _written(self, complexity: Mapping[str, Complexity]) -> Measures:
        costs = {name: self._curves[name].cost for name in self._names}
        best = self._curves[min(costs, key=lambda name: costs[name])]
        anchor = best.anchor
        file = AnchorFile(anchor=anchor, digest=anchor.digest, mean_log_lagrangian=costs, complexity=best.complexity)
        write_file(self._run, ANCHOR, file)
        write_file(self._run, COMPLEXITY, Complexities(classes=dict(complexity)))
        others = ", ".join(f"{name} {cost:+.3f}" for name, cost in costs.items())
        self._say(f"anchor: teacher {anchor.teacher}, {len(anchor.curve)} points (mean ln J: {others})")
        return Measures(anchor, complexity)
