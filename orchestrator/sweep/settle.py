"""Settles what a specification leaves to the machine: precision `auto`, and how trials share CPUs and GPUs.

This is done once, by the sweep's first start, before its run folder is made. From then on `spec.yaml` and `inputs.json`
there have the values, and every later start takes them from there, on whatever machine: all trials of a sweep, and all
ranks of a trial, compute alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import JsonValue

from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.fill import answer_of
from orchestrator.spec.messages import SpecError, counted
from orchestrator.spec.section import refusal
from orchestrator.spec.sections import Training
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.devices import Device, computes_in_bf16, devices
from orchestrator.sweep.front.anchor import measure_complexity
from orchestrator.sweep.layout import Largest, Layout, layout
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.inputs import INPUTS, training_inputs

LAYOUT = ("ranks_per_trial", "gpus_per_rank")  # of the section `training`
OF_TRAINING = ("precision", *LAYOUT)


def is_settled(spec: Spec) -> bool:
    """Whether nothing is left open."""
    training = spec.training
    return (
        training.precision != "auto"
        and spec.concurrent_trials is not None
        and all(getattr(training, name) is not None for name in LAYOUT)
    )


def as_begun(spec: Spec, run: Store) -> Spec:
    """The specification with what an earlier start has settled, of those fields that are open.

    A run folder that is another sweep's, or no sweep's, is left to `check_inputs`.

    Args:
        spec: with absolute paths.
        run: the run folder.

    Raises:
        FormatError, StoreError: its file of inputs cannot be read.
    """
    if is_settled(spec) or not run.exists(INPUTS):
        return spec
    stored = records.read_json(run, INPUTS)
    training = stored.get("training") if isinstance(stored, dict) else None
    if not isinstance(stored, dict) or not isinstance(training, dict):
        return spec
    return _filled_in(spec, training, stored.get("concurrent_trials"))


def settle(plan: Plan, say: Callable[[str], None]) -> Plan:
    """The plan with nothing left open; says in a line what was settled. Ray must run.

    Args:
        plan: of the sweep.
        say: takes the line.

    Raises SpecError: its numbers do not fit together.
    """
    spec = plan.spec
    if is_settled(spec):
        return plan
    found = devices()
    at_hand = [device.node for device in found]
    open_gpus = spec.training.gpus_per_rank is None and any(node.gpus for node in at_hand)
    chosen = layout(
        spec.training,
        at_hand,
        trials=spec.trials,
        at_once=spec.concurrent_trials,
        largest=largest(plan, _complexity(plan)) if open_gpus else None,
    )
    precision, reason = _precision(spec, found, chosen)
    values: dict[str, JsonValue] = {
        "precision": precision,
        "ranks_per_trial": chosen.ranks,
        "gpus_per_rank": chosen.gpus,
    }
    settled = _filled_in(spec, values, chosen.trials)
    if problems := [*settled.training.problems()]:
        raise SpecError(problems)
    say(_line(spec, settled, reason))
    inputs = plan.inputs | {
        "training": training_inputs(settled.training),
        "concurrent_trials": settled.concurrent_trials,
    }
    return replace(plan, spec=settled, inputs=inputs)


def largest(plan: Plan, complexity: Mapping[str, Complexity]) -> Largest:
    """The largest of the networks that a sweep trains."""
    students = plan.students.values()
    return Largest(
        parameters=max(its.params for its in complexity.values()),
        N=max(max(student.N, student.encoder_N or 0) for student in students),
        side=plan.spec.crops.size,
    )


def _complexity(plan: Plan) -> Mapping[str, Complexity]:
    answer: Mapping[str, Complexity] = answer_of(measure_complexity.remote(plan.students, plan.spec.rate_ladder))
    return answer


def _precision(spec: Spec, found: list[Device], chosen: Layout) -> tuple[str, str]:
    """The precision, and why it is that one; empty: the specification says so."""
    if spec.training.precision != "auto":
        return spec.training.precision, ""
    bf16, reason = computes_in_bf16(found, gpus=bool(chosen.gpus))
    return "bf16" if bf16 else "fp32", reason


def _filled_in(spec: Spec, training: Mapping[str, JsonValue], concurrent: JsonValue) -> Spec:
    """The specification with these values where it leaves them open. Raises SpecError: they are of no use there."""
    own, settled_before = spec.training, "what an earlier start of this sweep can have settled"
    values = {name: training.get(name) for name in OF_TRAINING if getattr(own, name) in (None, "auto")}
    if spec.concurrent_trials is not None:
        concurrent = spec.concurrent_trials
    if not isinstance(concurrent, int) or concurrent < 1:
        raise SpecError([refusal("concurrent_trials", concurrent, settled_before)])
    try:
        settled = Training.model_validate_json(json.dumps(own.model_dump(mode="json") | values))
    except ValueError:
        raise SpecError([refusal("training", values, settled_before)]) from None
    return spec.model_copy(update={"training": settled, "concurrent_trials": concurrent})


def _line(given: Spec, settled: Spec, reason: str) -> str:
    """What was settled, in words."""
    before, training = given.training, settled.training
    parts = [f"precision {training.precision}, since {reason}"] if reason else []
    if (before.ranks_per_trial, given.concurrent_trials) != (training.ranks, settled.concurrent_trials):
        trials = "1 trial" if settled.concurrent_trials == 1 else f"{settled.concurrent_trials} trials side by side"
        parts.append(f"{trials}, {counted(training.ranks, 'rank')} each")
    if before.gpus_per_rank is None:
        parts.append(f"{training.gpus:g} GPUs a rank" if training.gpus else "on CPUs")
    return f"training: {'; '.join(parts)}"
