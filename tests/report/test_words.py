"""What the report answers at its top."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.report.words import answer, front_in_words, gain_in_words, gains_of
from orchestrator.store.store import Store
from tests.report.conftest import TEACHERS
from tests.results.builders import coded_student


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        ([], "No student is on the front, as no coded curve has a valid BD-rate."),
        (["a"], "The one student on the front is distilled."),
        ([None], "The one student on the front is a control, not distilled."),
        (["a", "b"], "All 2 students on the front are distilled."),
        ([None, None], "None of the 2 students on the front are distilled."),
        (["a", None, None], "1 of 3 students on the front is distilled."),
        (["a", None, "b"], "2 of 3 students on the front are distilled."),
    ],
)
def test_the_front_in_words(run_folder: Path, teachers: list[str | None], words: str) -> None:
    run = read_run(Store(run_folder))
    front = tuple(coded_student(teacher=teacher) for teacher in teachers)
    assert front_in_words(replace(run, front=front)) == words
    assert front_in_words(replace(run, has_front=False)).startswith("The front is not made yet")


def test_the_gain_is_that_over_the_control_of_the_same_start(of_three_starts: RunFiles) -> None:
    """At the last rung that both reached: 20 % of the refitted control, 17.5 % of the distilled trial."""
    (gain,) = gains_of(of_three_starts)
    assert (gain.best, gain.median) == (2.5, 2.5)
    told = "Distillation gained 2.5 points of BD-rate at hyperprior-n8-m96, 4,608 images, over the refitted start"
    assert gain_in_words([gain]) == f"{told} without it (one trial)."


def test_a_loss_is_called_one(of_three_starts: RunFiles) -> None:
    *controls, distilled = of_three_starts.trials
    rungs = tuple(rung.model_copy(update={"bd_rate_pct": (rung.bd_rate_pct or 0) + 4.0}) for rung in distilled.rungs)
    worse = replace(of_three_starts, trials=(*controls, distilled.changed(rungs=rungs)))
    words = (
        "Distillation gained nothing: at hyperprior-n8-m96, 4,608 images, over the refitted start without it, it lost"
    )
    assert gain_in_words(gains_of(worse)) == f"{words} 1.5 points of BD-rate (one trial)."


def test_curves_without_a_bd_rate_are_compared_by_their_cost(of_three_starts: RunFiles) -> None:
    trials = [
        trial.changed(rungs=tuple(rung.model_copy(update={"bd_rate_pct": None}) for rung in trial.rungs))
        for trial in of_three_starts.trials
    ]
    (gain,) = gains_of(replace(of_three_starts, trials=tuple(trials)))
    assert gain.best == pytest.approx(2.5) and gain.in_words(gain.best) == "a factor of 1.03 in the cost J"


def test_without_a_control_of_the_same_start_nothing_is_claimed(of_three_starts: RunFiles) -> None:
    trials = [trial for trial in of_three_starts.trials if trial.init != "teacher-refit" or trial.teacher]
    alone = replace(of_three_starts, trials=tuple(trials))
    assert gains_of(alone) == []
    assert "What distillation gained cannot be said" in answer(alone) and "<ul>" not in answer(alone)


def test_of_several_students_each_is_named_the_best_first(run_folder: Path) -> None:
    run = read_run(Store(run_folder))
    gains = gains_of(run)
    assert [gain.best for gain in gains] == sorted((gain.best for gain in gains), reverse=True) and len(gains) == 4
    text = answer(run)
    assert "Distillation gained up to 8.0 points of BD-rate at hyperprior-n16-m96, 4,608 images" in text
    assert text.count("<li>") == 4
    assert "<li>hyperprior-n8-m96, 4,608 images: gained 5.0 points of BD-rate (best of 2; the median gained 3.5" in text


def test_names_are_escaped(of_three_starts: RunFiles) -> None:
    student = of_three_starts.trials[-1].student
    assert TEACHERS[1] and student.family  # the group's name is built of the student's own fields
    odd = [trial.changed(start_of=None if trial.start_of is None else "<b>") for trial in of_three_starts.trials]
    more = odd[-1].changed(trial_id="9", loss=odd[1].loss.model_copy(update={"latent": 0.1}))
    assert "<b>" not in answer(replace(of_three_starts, trials=(*odd, more)))
