from __future__ import annotations

import time

import pytest

from orchestrator.sweep.forecast.account import Account
from orchestrator.trials.record import Rung, SegmentBytes
from testing import records
from testing.records import record


def rung(images: int, ended_at: float, **seconds: float) -> Rung:
    sizes = SegmentBytes(read=100, checkpoint=20, weights=3)
    return records.rung(images, ended_at=ended_at, bytes=sizes, **seconds)


def test_what_is_left_of_the_gangs_time_is_idle() -> None:
    account = Account()
    account.gangs, account.seconds["trials"] = 2, 50.0
    soon = time.time() + 1
    first = rung(100, soon, training_s=30.0, data_wait_s=2.0, validation_s=5.0, startup_s=10.0, build_s=1.0)
    second = rung(300, soon, training_s=20.0, saving_s=4.0, turnaround_s=0.5)
    found = account.to_json([record("1-a", [first]), record("2-b", [rung(100, soon), second])], finished=True)
    assert found["gangs"] == {
        "training_s": 48.0,
        "data_wait_s": 2.0,
        "validation_s": 5.0,
        "startup_s": 11.0,
        "checkpoints_s": 4.0,
        "idle_s": pytest.approx(2 * 50 - 70),
    }
    assert sum(found["gangs"].values()) == 2 * found["phases_s"]["trials"]
    assert found["images"] == 400 and found["turnaround_max_s"] == 0.5


def test_of_a_continued_sweep_only_this_start_counts() -> None:
    account = Account()
    account.continued, account.features_stored = True, 7
    before, now = rung(100, 1.0, training_s=99.0), rung(300, time.time() + 1, training_s=20.0)
    found = account.to_json([record("1-a", [before, now]), record("2-b", [before]), record("3-c")], finished=False)
    assert found["images"] == 200 and found["gangs"]["training_s"] == 20.0 and found["continued"]
    assert found["bytes"] == {"features_stored": 7, "weights": 6, "checkpoints": 20, "features_read": 100}
