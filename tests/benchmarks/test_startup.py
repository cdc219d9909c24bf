"""The arithmetic of `benchmarks.whole.startup`."""

from __future__ import annotations

import pytest

from benchmarks.whole import startup

ACCOUNT = {
    "phases_s": {"ray": 5.0, "anchor": 10.0, "trials": 80.0, "coding": 3.0},
    "gangs": {"training_s": 100.0, "validation_s": 20.0, "startup_s": 30.0, "idle_s": 10.0},  # of two gangs
}


def test_shares_of_all_gangs_time_add_up() -> None:
    shares = startup.shares(ACCOUNT, elapsed=100.0)
    assert shares.pop("training_s") == 50.0
    assert (shares["share_training"], shares["share_idle"], shares["share_phase_anchor"]) == (0.5, 0.05, 0.1)
    assert shares["share_outside"] == pytest.approx(0.02) and sum(shares.values()) == pytest.approx(1.0)


def test_goals_stay_where_they_are_missed() -> None:
    rounds = [
        {"after": {"wall_s": 100.0, "share_training": share, "compiled_extensions": 0.0}, "proposed": proposed}
        for share, proposed in (
            (0.7, {"wall_s": 50.0, "share_training": 0.8, "compiled_extensions": 0.0}),
            (0.6, {"wall_s": 25.0, "share_training": 0.8, "compiled_extensions": 1.0}),
        )
    ]
    found = startup.goals(rounds)
    assert found["share_that_trains_after"] == {"value": pytest.approx(0.65), "goal": 0.75, "at": "least"}
    assert found["compiled_extensions_proposed"]["value"] == 1.0
    summary = startup.summary(rounds)
    assert summary["wall_over_first"]["proposed"]["values"] == [0.5, 0.25]
    assert summary["arms"]["after"]["share_training"]["median"] == pytest.approx(0.65)
