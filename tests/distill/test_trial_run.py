"""What a trial starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.catalogue import build_ladder
from models.weights import save_ladder
from orchestrator.distill.trial_run import first_ladder
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.sections import PRIM_LAMBDAS, Photographs, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import trials


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Two teachers, and a student that starts from its teacher's channels."""
    teachers = []
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        path = tmp_path / f"{name}.safetensors"
        save_ladder(path, build_ladder(family="hyperprior", N=12, M=16, lambdas=PRIM_LAMBDAS, kind="variable-rate"))
        teachers.append(Teacher(name=name, weights=str(path)))
    return Spec(
        name="t",
        trials=4,
        photographs=Photographs(train="a", validation="b"),
        teachers=tuple(teachers),
        students=(Student(family="hyperprior", N=8, M=12, init="teacher-slice"),),
        losses=(LossSpace(latent=0.1),),
    )


def test_a_distilled_trial_and_its_control_start_from_the_same_weights(spec: Spec) -> None:
    plan = trials(spec)
    firsts = {(trial.teacher, trial.slice_of): list(first_ladder(spec, trial).parameters()) for trial in plan}
    assert firsts.keys() == {(None, "one"), (None, "other"), ("one", "one"), ("other", "other")}
    for teacher in ("one", "other"):
        pairs = zip(firsts[None, teacher], firsts[teacher, teacher], strict=True)
        assert all(torch.equal(control, distilled) for control, distilled in pairs)
    both = zip(firsts[None, "one"], firsts[None, "other"], strict=True)
    assert not all(torch.equal(one, other) for one, other in both)
