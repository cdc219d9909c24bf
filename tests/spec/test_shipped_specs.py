"""The specifications and recipes that are shipped: each is read, and every study has its controls."""

from pathlib import Path

import pytest

from orchestrator.spec.load import load_spec
from orchestrator.spec.networks import with_halves
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import trials

FILES = sorted((Path(__file__).parents[2] / "jobs" / "specs").glob("*.yaml"))
RECIPES = [path for path in FILES if path.stem.startswith(("teacher-", "student-"))]
SPECS = [path for path in FILES if path not in RECIPES]
STUDIES = [path for path in SPECS if path.stem not in ("quickstart", "decoder-only", "shelf", "grow-feds")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read(path: Path) -> None:
    assert load_spec(path, model=Recipe).name


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_specification_is_read(path: Path) -> None:
    spec: Spec = with_halves(load_spec(path).resolved(path.parents[2]))
    assert len(trials(spec)) == spec.trials


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_whole(path: Path) -> None:
    """Every student with every loss and without a teacher, nothing stopped early: equal images for all."""
    spec: Spec = load_spec(path)
    plan = trials(spec)
    classes = {trial.complexity_class for trial in plan}
    distilled = {loss.lowest for loss in spec.losses if not loss.lowest.is_control}
    assert len(classes) == len(spec.students)
    assert {(trial.complexity_class, trial.loss) for trial in plan if trial.teacher} == {
        (name, loss) for name in classes for loss in distilled
    }
    assert {trial.complexity_class for trial in plan if trial.teacher is None} == classes
    assert len(spec.early_stopping.rungs) == 1 or spec.early_stopping.rule == "none"


def test_a_decoder_only_sweep_trains_decoders_only() -> None:
    """Controls included: otherwise one on the front could not read the teacher's streams."""
    spec: Spec = load_spec(SPECS[0].with_name("decoder-only.yaml"))
    for trial in trials(spec):
        assert trial.inherits == ("g_a", "entropy"), trial.trial_id
        for phase in trial.loss.schedule:
            assert {"g_a", "h_a", "h_s", "entropy"} <= phase.frozen, trial.trial_id
