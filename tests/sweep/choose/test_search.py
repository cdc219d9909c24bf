"""What a search draws, what it makes of what it is told, and that it goes on as if undisturbed."""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.loss_space import LossSpace, Range
from orchestrator.spec.sections import EarlyStopping, Photographs, SearchSection, StoppingRule, Student, Teacher
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.choose.space import trials
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial, read_trials
from orchestrator.trials.record import Status, TrialRecord
from testing.records import rung, write

RUNGS = (10, 20, 30)
LOSSES = (
    LossSpace(latent=Range(low=0.001, high=10.0)),
    LossSpace(preset="prim-l1", reconstruction=Range(low=0.01, high=1.0)),
    LossSpace(preset="prim-l2"),
)
DRAWN = ("random", "tpe", "nsga2")
SIZE = Complexity(params=1, macs_per_pixel=2.0, encoder_macs_per_pixel=1.5, decoder_macs_per_pixel=0.5)


def spec(method: Any, count: int = 28, replicates: int = 1, **changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "name": "t",
        "trials": count,
        "photographs": Photographs(train="a", validation="b"),
        "teachers": (Teacher(name="h", weights="h.safetensors"), Teacher(name="m", weights="m.safetensors")),
        "students": tuple(Student(family="hyperprior", N=n, M=96) for n in (32, 8, 24, 16)),
        "losses": LOSSES,
        "search": SearchSection(method=method, replicates=replicates),
        "early_stopping": EarlyStopping(rungs=RUNGS),
    }
    return Spec(**(fields | changes))


def cost(trial: Trial) -> float:
    """How far a distilled trial is from the best, by hand: the first loss at a latent weight of 0.1, by teacher h."""
    if trial.loss.preset is not None:
        return 0.5
    assert trial.loss.latent is not None
    return 0.1 * abs(math.log(trial.loss.latent / 0.1)) + 0.1 * (trial.teacher == "m")


def ended(trial: Trial, status: Status | None = None) -> TrialRecord:
    """The record of an ended trial: the better third finishes, BD-rates fall with width and with images."""
    distance = cost(trial) if trial.teacher else 0.5
    good = distance < 0.4
    rungs = tuple(
        rung(images, 100 * distance - 2 * trial.student.N - 20 * place, log_lagrangian_ratio=distance - 0.1 * place)
        for place, images in enumerate(RUNGS[: 3 if good else 1])
    )
    macs = 10.0 * trial.student.N
    size = Complexity(params=1, macs_per_pixel=macs, encoder_macs_per_pixel=macs, decoder_macs_per_pixel=0.0)
    record = records.fresh(trial, size, "token")
    if status == "failed":
        return record.changed(status=status, error="a wrong setting")
    return record.changed(status=status or ("finished" if good else "stopped"), rungs=rungs)


def run(search: Search) -> list[Trial]:
    """Asks and tells to the end, one trial at a time."""
    given = []
    while (trial := search.ask()) is not None:
        given.append(trial)
        search.tell(trial.trial_id, ended(trial))
    return given


def test_a_grid_s_trials_are_the_space_s() -> None:
    fixed = spec("grid", 12, losses=(LossSpace(latent=0.1), LossSpace(latent=0.2)))
    assert run(Search(fixed)) == list(trials(fixed)) and all(not trial.choices for trial in trials(fixed))
    only_controls = spec("grid", 4, losses=(LossSpace(preset="none"),))
    assert [trial.teacher for trial in run(Search(only_controls))] == [None] * 4


@pytest.mark.parametrize("method", DRAWN)
def test_controls_come_first_and_a_loss_has_its_own_weights(method: str) -> None:
    given = run(Search(spec(method, 60)))
    assert len({trial.trial_id for trial in given}) == 60
    assert [(trial.student.N, trial.teacher) for trial in given[:4]] == [(n, None) for n in (8, 16, 24, 32)]
    for number, trial in enumerate(given[4:], start=5):
        loss = LOSSES[int(trial.choices["loss"])]
        assert trial.trial_id.startswith(f"{number:02}-hyperprior-n{trial.student.N}-{trial.teacher}-")
        weights = {name: getattr(trial.loss, name) for name in loss.ranges}
        assert trial.loss == loss.at(weights)
        assert all(bounds.low <= weights[name] <= bounds.high for name, bounds in loss.ranges.items())
        own = {f"losses.{trial.choices['loss']}.{name}" for name in loss.ranges}
        if method != "nsga2":
            assert set(trial.choices) == {"student", "teacher", "loss"} | own
    assert {trial.choices["loss"] for trial in given[4:]} == {0, 1, 2}


def test_weights_are_drawn_evenly_on_a_log_scale() -> None:
    given = run(Search(spec("random", 400, losses=LOSSES[:1])))[4:]
    quarters = Counter(math.floor(math.log10(trial.loss.latent or 0)) for trial in given)  # 0.001 to 10
    assert set(quarters) == {-3, -2, -1, 0} and all(70 < count < 130 for count in quarters.values())


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_students_take_turns(method: str) -> None:
    assert [trial.student.N for trial in run(Search(spec(method)))] == [8, 16, 24, 32] * 7


def test_a_sampler_that_is_told_finds_better_losses_than_one_that_is_not() -> None:
    """NSGA-II finds them for narrow students as well as for wide ones."""
    late = {method: run(Search(spec(method, 84)))[-24:] for method in DRAWN}
    mean = {method: sum(map(cost, given)) / len(given) for method, given in late.items()}
    assert mean["tpe"] < 0.6 * mean["random"] and mean["nsga2"] < 0.8 * mean["random"]
    assert len({trial.student.N for trial in late["nsga2"]}) >= 3


def test_a_trial_that_was_stopped_early_tells_tpe_how_good_it_was() -> None:
    """No drawn trial of the sweep goes beyond its first rung."""
    late = {}
    for method in ("random", "tpe"):
        search, given = Search(spec(method, 84)), []
        while (trial := search.ask()) is not None:
            given.append(trial)
            record = ended(trial)
            search.tell(trial.trial_id, record.changed(status="stopped", rungs=record.rungs[:1]))
        late[method] = sum(map(cost, given[-24:]))
    assert late["tpe"] < 0.75 * late["random"]


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize("method", DRAWN)
def test_restored_anywhere_it_draws_what_the_undisturbed_one_does(method: str, replicates: int) -> None:
    """It is restored from the records' JSON alone, in any order."""
    whole = spec(method, 28 * replicates, replicates)
    undisturbed = run(Search(whole))
    left = [TrialRecord.from_json(ended(trial).to_json(), trial.trial_id) for trial in undisturbed]
    assert {record.status for record in left} == {"finished", "stopped"}
    for cut in (0, 3, 9, 14, 21, whole.trials - 1):
        search, trial_records = Search(whole), left[:cut]
        random.Random(cut).shuffle(trial_records)
        assert search.resume(trial_records) == []
        assert run(search) == undisturbed[cut:]


@pytest.mark.parametrize("method", DRAWN)
def test_what_was_begun_goes_on_first_and_is_not_drawn_again(method: str) -> None:
    whole = spec(method)
    search = Search(whole)
    given = [trial for _ in range(24) if (trial := search.ask())]
    ended_so: list[Status] = ["finished", "stopped"]
    others: list[Status] = ["running", "failed", "finished", "running"]
    statuses = ended_so * 10 + others
    trial_records = [ended(trial, status) for trial, status in zip(given, statuses, strict=True)]
    again = Search(whole)
    assert again.resume(trial_records) == [given[20], given[21], given[23]]
    for trial, record in reversed(list(zip(given, trial_records, strict=True))):  # as they may end with several gangs
        search.tell(trial.trial_id, record)
    assert [again.ask() for _ in range(4)] == [search.ask() for _ in range(4)]


def test_a_failed_or_running_trial_tells_the_search_nothing() -> None:
    one, other = Search(spec("tpe")), Search(spec("tpe"))
    for number in range(16):
        trial = one.ask()
        assert trial is not None and trial == other.ask()
        if number % 3:
            one.tell(trial.trial_id, ended(trial))
            other.tell(trial.trial_id, ended(trial))
        else:
            one.tell(trial.trial_id, ended(trial, "failed" if number % 2 else "running"))
    assert one.ask() == other.ask()


@pytest.mark.parametrize("method", DRAWN)
def test_a_space_without_ranges_is_drawn_whole_and_once(method: str) -> None:
    losses = (LossSpace(latent=0.1), LossSpace(latent=0.2))
    given = run(Search(spec(method, 20, losses=losses)))
    assert len({(trial.student, trial.teacher, trial.loss) for trial in given}) == 20


@pytest.mark.parametrize("method", DRAWN)
def test_replicates_share_all_but_the_seed(method: str) -> None:
    given = run(Search(spec(method, 24, 3, seed=5)))
    for first in range(0, 24, 3):
        group = given[first : first + 3]
        assert [trial.seed for trial in group] == [5, 6, 7]
        assert len({(trial.student, trial.teacher, trial.loss) for trial in group}) == 1
        assert [trial.trial_id.rpartition("-")[2] for trial in group] == ["s5", "s6", "s7"]
    assert [trial.teacher is None for trial in given] == [True] * 12 + [False] * 12


@pytest.mark.parametrize("method", DRAWN)
def test_the_seed_decides_what_is_drawn(method: str) -> None:
    """The choices: the trials' own seeds differ in any case."""
    one, two, again = ([trial.choices for trial in run(Search(spec(method, seed=seed)))] for seed in (1, 2, 1))
    assert one != two and one == again


def rule(name: StoppingRule = "none") -> RungRule:
    return RungRule(rule=name, rungs=(512, 1536, 4608), reduction=3)


def test_a_trial_s_file_is_there_before_tune_hears_of_it(tmp_path: Path) -> None:
    from orchestrator.sweep.tune_search import TuneSearch

    folder, whole = Store(tmp_path), spec("tpe", 6)
    classes = {trial.complexity_class for trial in run(Search(whole))}
    sizes = dict.fromkeys(classes, SIZE)
    records.take_over(folder, "token")
    tune = TuneSearch(Search(whole), rule(), [], folder, "token", sizes)
    first = tune.suggest("a")
    assert isinstance(first, dict)
    written = read_trial(folder, first["trial_id"])
    assert written is not None and written.trial == Search(whole).ask()
    write(folder, written.changed(status="stopped", rungs=ended(written.trial).rungs))
    tune.on_trial_complete("a", {"anything": 1})
    second = tune.suggest("b")

    search = Search(whole)
    again = TuneSearch(search, rule(), search.resume(read_trials(folder)), folder, "token", sizes)
    given = [again.suggest(name) for name in "cdefgh"]
    assert given[0] == second and given[5] == "FINISHED" and len({str(answer) for answer in given}) == 6
    assert len(read_trials(folder)) == 6
    records.take_over(folder, "another")
    with pytest.raises(records.NotOwner):
        TuneSearch(Search(whole), rule(), [], folder, "token", sizes).suggest("i")


def test_tune_asks_for_two_trials_at_once_and_keeps_both_actors(local_ray: None, tmp_path: Path) -> None:
    from ray import cloudpickle, tune

    from orchestrator.sweep.tune_search import TuneSearch

    whole, folder, token = spec("tpe", 12), Store(tmp_path / "run"), "token"
    records.take_over(folder, token)

    class Short(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            (tmp_path / f"actor-{id(self)}-{os.getpid()}").touch()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

        def step(self) -> dict[str, Any]:
            # A trial that ends before Tune knows that the other's actor has started may make it start one more. It
            # knows when it asks for a second step.
            if self.iteration == 0:
                return {}
            (tmp_path / f"asked-{id(self)}-{os.getpid()}").touch()
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("asked-*"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            record = read_trial(folder, self.config["trial_id"])
            assert record is not None
            write(folder, ended(record.trial))
            return {"done": True}

    sizes = {trial.complexity_class: SIZE for trial in trials(whole)}
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        tune.Tuner(
            tune.with_resources(Short, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearch(Search(whole), rule(), [], folder, token, sizes),
                num_samples=12,
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path / "tune"),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    trial_records = read_trials(folder)
    assert [int(trial_record.trial_id[:2]) for trial_record in trial_records] == list(range(1, 13))
    assert all(trial_record.ended for trial_record in trial_records) and len(list(tmp_path.glob("actor-*"))) == 2
