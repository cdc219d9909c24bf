"""What the machine decides is decided once, said in a line, and kept in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep import settle as module
from orchestrator.sweep.devices import Device, bf16_flag, computes_in_bf16
from orchestrator.sweep.layout import Node
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.run_folder.inputs import check_inputs, open_folder
from orchestrator.sweep.settle import as_begun, is_settled, settle

OPEN = (
    "training.precision=auto",
    "training.ranks_per_trial=null",
    "training.gpus_per_rank=null",
    "concurrent_trials=null",
)
WITH = Device(host="a", node=Node(cpus=2), cpu_bf16="avx512_bf16")
WITHOUT = Device(host="b", node=Node(cpus=2), cpu_bf16=None)


def card(capability: tuple[int, int] | None) -> Device:
    node = Node(cpus=16, gpus=1, gpu_bytes=80e9)
    return Device(host="c", node=node, cpu_bf16=None, capability=capability)


@pytest.fixture
def planned(tiny_spec: Path, tmp_path: Path) -> Plan:
    folders = (f"results={tmp_path / 'runs'}", f"store={tmp_path / 'store'}")
    return Plan.of(load_spec(tiny_spec, [*folders, *OPEN]).resolved(tmp_path))


def settled(plan: Plan, monkeypatch: pytest.MonkeyPatch, *found: Device) -> tuple[Plan, list[str]]:
    cost = Complexity(params=600_000, macs_per_pixel=1.0, encoder_macs_per_pixel=1.0, decoder_macs_per_pixel=1.0)
    monkeypatch.setattr(module, "devices", lambda: [*found])
    monkeypatch.setattr(module, "_complexity", lambda plan: {"any": cost})
    said: list[str] = []
    return settle(plan, said.append), said


def open_fields(spec: Spec) -> tuple[Any, ...]:
    training = spec.training
    return training.precision, training.ranks_per_trial, training.gpus_per_rank, spec.concurrent_trials


@pytest.mark.parametrize(
    ("found", "values", "line"),
    [
        (
            [WITH],
            ("bf16", 1, 0.0, 2),
            "precision bf16, since the processors have avx512_bf16; 2 trials side by side, 1 rank each; on CPUs",
        ),
        (
            [WITH, WITHOUT],
            ("fp32", 1, 0.0, 3),
            "precision fp32, since the processor of node b has none of amx_bf16, avx512_bf16; "
            "3 trials side by side, 1 rank each; on CPUs",
        ),
        (
            [card((9, 0))],
            ("bf16", 1, 0.5, 2),
            "precision bf16, since the GPUs have compute capability 9.0 or more; "
            "2 trials side by side, 1 rank each; 0.5 GPUs a rank",
        ),
    ],
)
def test_what_is_open_is_settled_by_the_nodes_and_said(
    planned: Plan, monkeypatch: pytest.MonkeyPatch, found: list[Device], values: tuple[Any, ...], line: str
) -> None:
    plan, said = settled(planned, monkeypatch, *found)
    assert not is_settled(planned.spec) and is_settled(plan.spec)
    assert open_fields(plan.spec) == values and said == [f"training: {line}"]


def test_what_is_given_is_kept_and_nothing_is_said(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = settled(planned, monkeypatch, WITH)
    again, said = settled(plan, monkeypatch, WITHOUT)
    assert again is plan and said == []


def test_a_later_start_takes_what_the_first_one_settled(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Store(planned.spec.results) / planned.spec.name
    assert as_begun(planned.spec, run) is planned.spec  # nothing was begun
    first, _ = settled(planned, monkeypatch, WITH)
    assert not open_folder(run, first.spec, first.inputs)
    later = Plan.of(as_begun(planned.spec, run))  # on a machine without bf16
    assert open_fields(later.spec) == open_fields(first.spec) == ("bf16", 1, 0.0, 2)
    assert later.inputs == first.inputs and check_inputs(run, later.inputs)
    assert "precision: bf16" in run.read("spec.yaml").decode()


def test_another_precision_than_the_folder_s_is_refused_in_a_line(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Store(planned.spec.results) / planned.spec.name
    first, _ = settled(planned, monkeypatch, WITH)
    open_folder(run, first.spec, first.inputs)
    training = planned.spec.training.model_copy(update={"precision": "fp32"})
    other = Plan.of(as_begun(planned.spec.model_copy(update={"training": training}), run))
    with pytest.raises(SpecError, match=r"^training.precision: 'fp32' is not allowed: .* holds a sweep with 'bf16'"):
        check_inputs(run, other.inputs)


def test_a_folder_that_says_nothing_of_use_is_one_line(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Store(planned.spec.results) / planned.spec.name
    first, _ = settled(planned, monkeypatch, WITH)
    open_folder(run, first.spec, first.inputs)
    inputs = json.loads(run.read("inputs.json"))
    wrong = {"concurrent_trials": "many", "training": {"precision": "fp8"}}
    for field, value in wrong.items():
        run.replace("inputs.json", json.dumps(inputs | {field: value}).encode())
        with pytest.raises(SpecError, match=rf"^{field}: .* is not allowed: what an earlier start"):
            as_begun(planned.spec, run)


@pytest.mark.parametrize("capability", [(7, 5), None])
def test_a_gpu_without_bf16_trains_in_fp32(capability: tuple[int, int] | None) -> None:
    bf16, reason = computes_in_bf16([card((8, 6)), card(capability)], gpus=True)
    assert not bf16 and reason.startswith("node c has ")


def test_a_processor_s_flags_say_whether_it_has_bf16() -> None:
    line = "model name\t: any\nflags\t\t: fpu sse2 {} avx512f\nbugs\t\t: amx_bf16\n"
    assert bf16_flag(line.format("avx512_bf16")) == "avx512_bf16"
    assert bf16_flag(line.format("avx512_bf16 amx_bf16")) == "amx_bf16"
    assert bf16_flag(line.format("avx512_bf1")) is None and bf16_flag("") is None


def test_an_open_field_is_never_taken_for_a_value(planned: Plan) -> None:
    for name in ("ranks", "gpus", "settled_precision"):
        with pytest.raises(ValueError, match="is not settled"):
            getattr(planned.spec.training, name)
