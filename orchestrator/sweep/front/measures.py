"""What every trial of a sweep is measured by: the anchor and each class's complexity, measured once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import ray

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.complexity import Complexity
from orchestrator.results.anchor import ANCHOR, COMPLEXITY, AnchorFile, Complexities
from orchestrator.results.files import read_file, write_file
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import measure_complexity, measure_teacher
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.progress import say


class Measures(NamedTuple):
    """As they are in the run folder."""

    anchor: Anchor
    complexity: Mapping[str, Complexity]  # by complexity class


def saved_measures(run: Store) -> Measures | None:
    """Of an earlier start; None: there are not both yet. Raises FormatError."""
    anchor, complexities = read_file(run, ANCHOR, AnchorFile), read_file(run, COMPLEXITY, Complexities)
    return None if anchor is None or complexities is None else Measures(anchor.anchor, complexities.classes)


def measure(plan: Plan, run: Store) -> Measures:
    """Measures them, and writes them into the run folder. Ray must run."""
    spec, rates = plan.spec, plan.spec.rate_ladder
    students = {trial.complexity_class: trial.student for trial in plan.trials}
    tasks = [measure_teacher.remote(teacher.name, teacher.weights, plan.validation, rates) for teacher in spec.teachers]
    *curves, complexity = ray.get([*tasks, measure_complexity.remote(students, rates)])
    anchor, _ = min(curves, key=lambda curve: curve[1])
    costs = {curve.teacher: cost for curve, cost in curves}
    write_file(run, ANCHOR, AnchorFile(anchor=anchor, digest=anchor.digest, mean_log_lagrangian=costs))
    write_file(run, COMPLEXITY, Complexities(classes=complexity))
    others = ", ".join(f"{name} {cost:+.3f}" for name, cost in costs.items())
    say(f"anchor: teacher {anchor.teacher}, {len(anchor.curve)} points (mean ln J: {others})")
    return Measures(anchor, complexity)
