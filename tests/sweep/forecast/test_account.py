from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.results.account import Account, GangSeconds
from orchestrator.sweep.forecast.account import PhaseTimes, account_of, reported
from orchestrator.trials.record import Rung, SegmentBytes, TrialRecord
from testing import records


def rung(images: int, ended_at: float, **seconds: float | None) -> Rung:
    sizes = SegmentBytes(read=100, checkpoint=20, weights=3)
    return records.rung(images, ended_at=ended_at, bytes=sizes, **seconds)


def trial(name: str, *rungs: Rung) -> TrialRecord:
    return records.record(f"1-{name}", rungs)


def account(times: PhaseTimes, trials: list[TrialRecord], **others: Any) -> Account:
    known: dict[str, Any] = {"before": {}, "gangs": 1, "features_stored": 0, "continued": False, "finished": True}
    return account_of(times, trials, **known | others)


def test_what_is_left_of_the_gangs_time_is_idle() -> None:
    times = PhaseTimes()
    times.seconds["trials"] = 50.0
    soon = time.time() + 1
    first = rung(100, soon, training_s=30.0, data_wait_s=2.0, validation_s=5.0, startup_s=10.0, build_s=1.0)
    second = rung(300, soon, training_s=20.0, saving_s=4.0, turnaround_s=0.5)
    books = account(times, [trial("a", first), trial("b", rung(100, soon), second)], gangs=2)
    assert books.gangs.model_dump() == {
        "training_s": 48.0,
        "data_wait_s": 2.0,
        "validation_s": 5.0,
        "startup_s": 11.0,
        "checkpoints_s": 4.0,
        "idle_s": pytest.approx(2 * 50 - 70),
    }
    assert sum(books.gangs.model_dump().values()) == 2 * books.phases_s["trials"]
    assert books.images == 400 and books.turnaround_max_s == 0.5


def test_every_figure_of_an_account() -> None:
    times = PhaseTimes()
    times.seconds |= {"anchor": 3.0, "trials": 50.0}
    turnarounds = {100: 2.0, 300: None, 900: 0.5, 1800: 1.0}
    rungs = [rung(images, 1.0, turnaround_s=took) for images, took in turnarounds.items()]
    books = account(times, [trial("a", *rungs), trial("b")], gangs=3, features_stored=7)
    assert books.wall_s == pytest.approx(times.wall_s, abs=5)
    assert books.model_dump(exclude={"wall_s"}) == {
        "format": 1,
        "finished": True,
        "continued": False,
        "phases_s": {"anchor": 3.0, "trials": 50.0},
        "gangs": dict.fromkeys(GangSeconds.model_fields, 0.0) | {"idle_s": 150.0},
        "images": 1800,
        "bytes": {"features_stored": 7, "weights": 3, "checkpoints": 80, "features_read": 400},
        "turnaround_median_s": 1.0,
        "turnaround_max_s": 2.0,
    }
    nothing = account(PhaseTimes(), [trial("b")])
    assert (nothing.turnaround_median_s, nothing.turnaround_max_s) == (None, None)
    assert (nothing.gangs.idle_s, nothing.images) == (0.0, 0)


def test_the_time_of_a_phase_is_the_sum_of_its_contexts() -> None:
    times = PhaseTimes()
    for _ in range(2):
        with pytest.raises(KeyError), times.phase("trials"):
            time.sleep(0.02)
            raise KeyError
    assert times.seconds.keys() == {"trials"} and 0.04 <= times.seconds["trials"] <= times.wall_s < 5


def test_phases_side_by_side_share_the_time_as_their_tasks_seconds() -> None:
    times = PhaseTimes()
    with times.side_by_side("features", "anchor", "starts") as seconds:
        time.sleep(0.05)
        seconds["anchor"] += 6.0
        seconds["starts"] += 2.0
    features, anchor, starts = (times.seconds[name] for name in ("features", "anchor", "starts"))
    assert features == 0.0 and anchor == pytest.approx(3 * starts) and 0.05 <= anchor + starts <= times.wall_s
    with pytest.raises(KeyError), times.side_by_side("features", "anchor"):
        time.sleep(0.02)
        raise KeyError
    assert times.seconds["features"] >= 0.02 and times.seconds["anchor"] == anchor


def test_an_account_of_a_continued_sweep_counts_only_this_start() -> None:
    old, new = rung(100, 1.0, training_s=99.0), rung(300, time.time() + 1, training_s=20.0)
    before = reported([trial("a", old), trial("b", old), trial("c")])
    trials = [trial("a", old, new), trial("b", old), trial("c"), trial("d")]
    books = account(PhaseTimes(), trials, before=before, continued=True, finished=False, features_stored=7)
    assert books.images == 200 and books.gangs.training_s == 20.0 and books.continued and not books.finished
    assert books.bytes.model_dump() == {"features_stored": 7, "weights": 6, "checkpoints": 20, "features_read": 100}


@pytest.mark.parametrize("wrong_by_s", [-3600.0, 3600.0])
def test_the_clocks_of_nodes_do_not_matter(wrong_by_s: float) -> None:
    """A rung's `ended_at` is by the clock of its trial's node, which may differ from the driver's."""
    old, new = (
        rung(100, time.time() + wrong_by_s, training_s=99.0),
        rung(300, time.time() + wrong_by_s, training_s=20.0),
    )
    books = account(PhaseTimes(), [trial("a", old, new)], before=reported([trial("a", old)]))
    assert books.images == 200 and books.gangs.training_s == 20.0
