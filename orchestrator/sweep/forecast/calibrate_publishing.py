"""Times real bitstreams and the registry on little data; a part of the calibration."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.fill import answer_of
from orchestrator.registry.database import database_url
from orchestrator.registry.registry import Registry
from orchestrator.results.front import CodedStudent
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.forecast.calibration import CodingCost, CodingSeconds, RegistrySeconds
from orchestrator.sweep.front.anchor import code
from orchestrator.sweep.front.bundles import make_bundles
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.run_folder import records


def time_coding(
    plan: Plan, weights: Mapping[str, bytes], anchor: Anchor
) -> tuple[CodingSeconds, dict[str, CodingCost]]:
    """Time the coding of one validation crop.

    Args:
        plan: of the sweep.
        weights: complexity class -> content of the weights file of a student of it.
        anchor: its teacher is coded too.

    Returns:
        The costs apart from the students, and the cost of each class's student.
    """

    def seconds(network: bytes, rate_points: Sequence[int | float]) -> float:
        began = time.monotonic()
        answer_of(code.remote(network, plan.validation[:1], rate_points))
        return time.monotonic() - began

    def cost(network: bytes, rate_points: Sequence[int | float]) -> CodingCost:
        one_s, all_s = seconds(network, rate_points[:1]), seconds(network, rate_points)
        stream_s = max(0.0, all_s - one_s) / max(1, len(rate_points) - 1)
        return CodingCost(code_s=max(0.0, one_s - stream_s), stream_s=stream_s)

    rate_points = list(range(len(plan.spec.rate_ladder.lambdas)))
    teacher = next(teacher.weights for teacher in plan.spec.teachers if teacher.name == anchor.teacher)
    began = time.monotonic()
    for first in [code.remote(network, plan.validation[:1], rate_points[:1]) for network in weights.values()]:
        answer_of(first)
    cold_s = time.monotonic() - began
    networks = {name: cost(network, rate_points) for name, network in weights.items()}
    warm_s = max(network.code_s + network.stream_s for network in networks.values())
    anchor_cost = cost(Path(teacher).read_bytes(), list(anchor.rate_points))
    return CodingSeconds(start_s=max(0.0, cold_s - warm_s), anchor=anchor_cost), networks


def time_registry(weights: Mapping[str, bytes], trial: Trial, complexity: Mapping[str, Complexity]) -> RegistrySeconds:
    """Time two trials, then two versions in a temporary registry, each with the export of its bundle; the first ones
    create experiment and model. Ray must run.

    Args:
        weights: complexity class -> content of a weights file.
        trial: registered under other names.
        complexity: by complexity class.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = Path(elsewhere) / "calibration"
        run, runs = Store(folder), dict[str, str]()
        trials, students, network = [], [], weights[trial.complexity_class]
        digest = hashlib.sha256(network).hexdigest()
        for name in ("first", "second"):
            run.replace(name, network)
            record = records.fresh(trial, complexity[trial.complexity_class], "calibration")
            named = {"trial_id": name, "weights": name, "weights_digest": digest}
            trials.append(record.changed(status="finished", **named))
            students.append(_registrable(trial, name, digest, complexity[trial.complexity_class]))
        marks = [time.monotonic()]
        registry = Registry(run, digest, database_url(folder / "mlflow.db"))
        for record in trials:
            runs |= registry.log_trials([record])
            marks.append(time.monotonic())
        for student in students:
            make_bundles(run, [student], lambda line: None)
            registry.register_front([student], runs)
            marks.append(time.monotonic())
    first_run_s, run_s, first_version_s, version_s = (late - early for early, late in pairwise(marks))
    start_s = max(0.0, first_run_s - run_s) + max(0.0, first_version_s - version_s)
    return RegistrySeconds(start_s=start_s, run_s=run_s, version_s=version_s)


def _registrable(trial: Trial, name: str, digest: str, size: Complexity) -> CodedStudent:
    """A student whose weights are in the file `name`, with placeholder figures."""
    return CodedStudent(
        trial_id=name,
        teacher=trial.teacher,
        student=trial.student,
        loss=trial.loss,
        complexity_class=trial.complexity_class,
        **asdict(size),
        images_seen=0,
        status="finished",
        weights=name,
        weights_digest=digest,
        bd_rate_pct=0.0,
        bd_rate_reason=None,
        overlap=None,
        interval_db=None,
        points=(),
        estimated_bd_rate_pct=0.0,
        rate_gap_pct=0.0,
        validation=(),
        entropy_id="",
    )
