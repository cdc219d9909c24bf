"""What the report says distillation was worth."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.report.distillation import equal_images, equal_wall_time
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.spec.sections import Student
from orchestrator.store.store import Store
from testing.records import write
from tests.report.conftest import TEACHERS, cells, make_trial


def test_a_trial_is_compared_with_the_control_of_its_own_start(run_folder: Path) -> None:
    """A start that is better by itself is no gain of the distillation from that teacher."""
    for file in (run_folder / "trials").iterdir():
        file.unlink()
    good, bad = TEACHERS[1:]
    levels = {(None, good): 10.0, (good, good): 11.0, (None, bad): 30.0, (bad, bad): 25.0}
    for number, ((teacher, start_of), level) in enumerate(levels.items()):
        trial = make_trial(4 * number, 8, teacher)
        last = trial.rungs[-1].model_copy(update={"bd_rate_pct": level})
        write(Store(run_folder), trial.changed(start_of=start_of, trial_id=f"{number}", rungs=(last,)))
    rows = cells(equal_images(read_run(Store(run_folder))))
    assert [(row["student"], row["control: slice"], row["best - slice"]) for row in rows] == [
        (f"hyperprior-n8-m96, slice of {good}", "+10.00", "+1.00"),
        (f"hyperprior-n8-m96, slice of {bad}", "+30.00", "-5.00"),
    ]


def test_trials_that_start_from_a_file_are_compared_with_its_control(run_folder: Path) -> None:
    for file in (run_folder / "trials").iterdir():
        file.unlink()
    student = Student(family="hyperprior", N=8, M=96, init="own.safetensors")
    for number, teacher in enumerate((None, TEACHERS[1])):
        write(Store(run_folder), make_trial(4 * number, 8, teacher).changed(student=student))
    *_, last = cells(equal_images(read_run(Store(run_folder))))
    assert (last["control: same file"], last["best - same file"], last["median - same start"]) == (
        "+146.50",
        "-5.00",
        "-5.00",
    )


def test_the_gain_over_each_control_is_told_apart(of_three_starts: RunFiles) -> None:
    text = equal_images(of_three_starts)
    *_, last = cells(text)
    controls = {name.removeprefix("control: "): value for name, value in last.items() if name.startswith("control: ")}
    assert controls == {"random start": "+90.00", "slice": "+40.00", "refitted": "+20.00"}
    gains = {name: value for name, value in last.items() if name.startswith("best - ")}
    assert gains == {"best - random start": "-72.50", "best - slice": "-22.50", "best - refitted": "-2.50"}
    words = re.findall(r"<li>(.*?)</li>", text)
    assert words == [
        "hyperprior-n8-m96, 4,608 images: the start (refitted) was worth +70.0 points of BD-rate over a random one, "
        "+20.0 over a slice, the losses on top of it +2.5 (best of 1)."
    ]
    assert text.count('class="better"') == 4 * 3 and "worse" not in text


def test_where_controls_were_stopped_early_is_told_too(of_three_starts: RunFiles) -> None:
    """Their last common rung in ratios of the cost, as not all curves have a BD-rate there."""
    stopped = []
    for trial in of_three_starts.trials:
        rungs = trial.rungs
        if trial.teacher is None and trial.init != "teacher-refit":
            first = rungs[0].model_copy(update={"bd_rate_pct": None, "log_lagrangian_ratio": 2.0})
            trial = trial.changed(rungs=(first,))
        else:
            better = 0.1 if trial.teacher is None else 0.0
            first = rungs[0].model_copy(update={"log_lagrangian_ratio": better})
            trial = trial.changed(rungs=(first, *rungs[1:]))
        stopped.append(trial)
    text = equal_images(replace(of_three_starts, trials=tuple(stopped)))
    name, images = of_three_starts.trials[0].complexity_class, of_three_starts.trials[0].rungs[0].images_seen
    assert re.findall(r"<li>(.*?)</li>", text) == [
        f"{name}, {images:,} images: the start (refitted) was worth a factor of 6.69 in the cost J over a random one, "
        "a factor of 6.69 over a slice, the losses on top of it a factor of 1.11 (best of 1).",
        f"{name}, 4,608 images: the losses on top of it +2.5 points of BD-rate (best of 1).",
    ]


def test_at_equal_wall_time_filling_and_refitting_count(of_three_starts: RunFiles) -> None:
    """The distilled trial pays for the cache and for its half of the refitting: it is compared where it was by then."""
    account = of_three_starts.account
    assert account is not None
    seconds = sum(rung.training_s for rung in of_three_starts.trials[0].rungs)
    free = account.model_copy(update={"phases_s": {"features": 0.0, "starts": 0.0}})
    (row,) = cells(equal_wall_time(replace(of_three_starts, account=free)))
    assert float(row["seconds, slice"]) == pytest.approx(seconds)
    dear = account.model_copy(update={"phases_s": {"features": 0.4 * seconds, "starts": 0.0}})
    (late,) = cells(equal_wall_time(replace(of_three_starts, account=dear)))
    gains = [[of[f"best - {start}"] for start in ("random start", "slice", "refitted")] for of in (row, late)]
    assert gains[0] == ["-72.50", "-22.50", "-2.50"]
    assert all(float(after) > float(before) for before, after in zip(*gains, strict=True))
