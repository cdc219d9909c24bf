"""Whoever uses a feature plan says so, keeps saying it, and what it said last stays; on a folder and on a real S3."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from orchestrator.features.keep.holds import Hold, read_holds
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store

RUN = "s3://bucket/runs/one"


def until(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def note(store: Store, name: str) -> dict[str, Any]:
    return json.loads(store.read(name))


def test_a_hold_is_written_at_once_and_its_end_stays(store, feature_plans):
    with Hold(store, feature_plans, RUN):
        held = read_holds(store)
        assert {hold.plan for hold in held} == {features.digest for features in feature_plans}
        assert all(hold.live and hold.holder == RUN and hold.age_s < 5 for hold in held)
        teacher = next(hold for hold in held if hold.teacher)
        assert (teacher.teacher, teacher.source) == ("small", feature_plans[1].source)
        assert (teacher.taps, teacher.crops, teacher.shards) == (("y", "x_hat"), 166, 5)
        assert note(store, teacher.name)["ledger"] == feature_plans[1].ledger()
    names = store.list("holds")
    assert [hold.name for hold in read_holds(store)] == names and not any(hold.live for hold in read_holds(store))
    with Hold(store, feature_plans, RUN):
        assert store.list("holds") == names and all(hold.live for hold in read_holds(store))
        with Hold(store, feature_plans, "another"):
            assert len(read_holds(store)) == 4


def test_a_hold_is_renewed_and_falls_silent_if_it_is_not(store, feature_plans, monkeypatch):
    with Hold(store, feature_plans[:1], RUN, interval_s=0.2) as hold:
        (name,) = store.list("holds")
        until(lambda: note(store, name)["beat"] >= 3)
        hold._end.set()  # as if the process were stopped
        hold._thread.join()
        assert read_holds(store)[0].live
        until(lambda: not read_holds(store)[0].live)
        assert not note(store, name)["ended"]


def test_the_stores_clock_counts(tmp_path, feature_plans):
    store = Store(tmp_path)
    with Hold(store, feature_plans[:1], RUN):
        (name,) = store.list("holds")
        for age_s, live in ((500, True), (700, False)):
            written = time.time() - age_s
            os.utime(tmp_path / name, (written, written))
            assert read_holds(store)[0].live is live


def test_a_hold_outlives_a_store_that_is_away(store, feature_plans, monkeypatch):
    real, away = Store.read_stamped, [True]
    with Hold(store, feature_plans[:1], RUN, interval_s=0.1) as hold:
        (name,) = store.list("holds")

        def absent(self, name):
            if away:
                raise StoreError("away")
            return real(self, name)

        monkeypatch.setattr(Store, "read_stamped", absent)
        until(lambda: hold._beat >= 3)
        assert note(store, name)["beat"] <= 1
        store.delete(name)
        away.clear()
        until(lambda: store.exists(name))  # and one that was pruned meanwhile is written again
        away.append(True)
    assert not note(store, name)["ended"]  # ending it was not possible, and is no reason to fail either


def test_a_hold_on_a_store_that_is_not_there_fails_at_once(s3_environment, monkeypatch, feature_plans):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("orchestrator.store.s3.AWAY_S", 0.0)
    with pytest.raises(StoreError, match="s3://sweep/x: "), Hold(Store("s3://sweep/x"), feature_plans, RUN):
        pass


def test_a_holder_that_starts_twice_counts_by_its_later_start(store, feature_plans):
    plans = feature_plans[:1]
    with Hold(store, plans, RUN, interval_s=60) as first:
        (name,) = store.list("holds")
        with Hold(store, plans, RUN, interval_s=60):
            later = note(store, name)["token"]
            first._stamp(name, ended=False)
            first._finish()  # its end is not the other's
            assert note(store, name)["token"] == later and read_holds(store)[0].live
        assert not read_holds(store)[0].live
        first._stamp(name, ended=False)  # but what still runs takes it back
        assert read_holds(store)[0].live
    assert not read_holds(store)[0].live


def test_a_note_that_cannot_be_read_holds_everything(tmp_path):
    store = Store(tmp_path)
    for name, data in (("a", b"{}"), ("b", b'{"format": 2, "ended": true}'), ("c", b"\xff"), ("d", b"[]")):
        store.replace(f"holds/{name}/x.json", data)
    assert [(hold.plan, hold.source, hold.live) for hold in read_holds(store)] == [(n, "", True) for n in "abcd"]
