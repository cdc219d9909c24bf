"""What a process that was taken over still writes: nothing of its successor's is changed, on a disk and on S3."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.gang.rank import RankSegment
from orchestrator.sweep.gang.trial import SweepTrial, _Segment
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial
from orchestrator.trials.record import Decision, SegmentBytes, TrialRecord
from testing.records import record, rung
from testing.servers import FaultProxy

TRIAL: Trial = record("1-a").trial
SIZE = Complexity(params=10, macs_per_pixel=2.0, encoder_macs_per_pixel=1.0, decoder_macs_per_pixel=1.0)
NO_BYTES = SegmentBytes(read=0, checkpoint=0, weights=0)


class Paused(Store):
    """A store that stops before it writes a trial's file."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def publish(self, name: str, data: bytes) -> str | None:
        self._pause(name)
        return super().publish(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._pause(name)
        super().replace(name, data)

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        self._pause(name)
        return super().replace_if(name, data, tag)

    def _pause(self, name: str) -> None:
        if name.startswith("trials/"):
            self.reached.set()
            assert self.go_on.wait(60)


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/run"
    request.getfixturevalue("s3_environment")
    return f"s3://sweep/{tmp_path.name}/run"


def trainable(run: Store, token: str) -> SweepTrial:
    """A trial's own process, without Ray and without ranks."""
    trial = SweepTrial.__new__(SweepTrial)
    there = read_trial(run, TRIAL.trial_id)
    assert there is not None
    trial._sweep, trial._trial, trial._record = SimpleNamespace(run=run, token=token), TRIAL, there  # type: ignore[assignment]
    return trial


def keep(run: Store, token: str, images: int) -> None:
    """The trial saves a checkpoint in the middle of a segment."""
    trial = trainable(run, token)
    path = trial._new_checkpoint(images)
    (run / path).replace("state", b"%d" % images)
    trial._commit_checkpoint(images, path, [{"state": "?"}])


def commit(run: Store, token: str, images: int) -> None:
    """The trial reaches a rung: its rank has written the weights and a checkpoint."""
    trial = trainable(run, token)
    weights, path = records.weights_file(TRIAL.trial_id, images, token), trial._new_checkpoint(images)
    run.replace(weights, b"weights %d" % images)
    (run / path).replace("state", b"%d" % images)
    rank = RankSegment(
        points=(),
        losses={},
        host="",
        files={"state": "?"},
        bytes=NO_BYTES,
        weights_sha256=f"digest {images}",
        gap_s=None,
        training_s=0.0,
        data_wait_s=0.0,
        validation_s=0.0,
        saving_s=0.0,
    )
    trial._commit_rung(rung(images, 1.0), _Segment(ranks=[rank], weights=weights, checkpoint=path))


def decide(run: Store, token: str, images: int) -> None:
    """The driver stops the trial."""
    decision = Decision(
        action="stop",
        rung=images,
        sequence=0,
        bracket=0,
        measure="bd_rate_pct",
        invalid=0,
        invalid_reason=None,
        place=2,
        places=1,
        reported=2,
    )
    records.write_decision(run, TRIAL.trial_id, token, decision)


def fail(run: Store, token: str, images: int) -> None:
    """The driver hears that the trial has failed."""
    records.mark_failed(run, TRIAL.trial_id, token, "a wrong setting")


def content(run: Store) -> dict[str, bytes]:
    return {name: run.read(name) for name in run.list()}


def taken_over(run: Store) -> None:
    """Another process takes the sweep over, and the trial goes on there."""
    records.take_over(run, "new")
    records.claim(run, [TRIAL.trial_id], "new")
    records.begin(run, TRIAL, SIZE, "new")
    commit(run, "new", 16)


STALE: list[Callable[[Store, str, int], None]] = [keep, commit, decide, fail]


@pytest.mark.parametrize("act", STALE)
def test_a_stale_process_changes_nothing(url: str, act: Callable[[Store, str, int], None]) -> None:
    """The process was paused between its check and its write."""
    run, stale = Store(url), Paused(url)
    records.take_over(run, "old")
    records.begin(run, TRIAL, SIZE, "old")
    commit(run, "old", 8)
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act, stale, "old", 8)
        assert stale.reached.wait(30)
        taken_over(run)
        before = content(run)
        stale.go_on.set()
        with pytest.raises(records.NotOwner, match=r"^[^\n]*was taken over by another process$"):
            acting.result(60)
    assert content(run) == before
    there = read_trial(run, TRIAL.trial_id)
    assert there is not None and there.checkpoint is not None and there.weights is not None
    assert {f"{there.checkpoint.path}/state", there.weights} <= set(before)


def test_a_put_that_is_late_changes_nothing(fault_proxy: FaultProxy, tmp_path: Path, monkeypatch: Any) -> None:
    """The stale process has sent its request, which reaches the server late."""
    run = Store(f"s3://sweep/{tmp_path.name}/run")
    records.take_over(run, "old")
    records.begin(run, TRIAL, SIZE, "old")
    fault_proxy.behave(latency_s=5.0, only=r"^PUT .*/trials/1-a\.json")
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(keep, run, "old", 8)
        while not any(name.startswith("checkpoints/") for name in run.list()):
            pass
        monkeypatch.setenv("AWS_ENDPOINT_URL", fault_proxy._target)  # the successor is on another machine
        taken_over(run)
        before = content(run)
        with pytest.raises(records.NotOwner):
            acting.result(60)
    assert content(run) == before


def test_a_write_whose_answer_is_lost_counts(fault_proxy: FaultProxy, tmp_path: Path) -> None:
    """The request is repeated, and the store then says that the condition does not hold."""
    run = Store(f"s3://sweep/{tmp_path.name}/run")
    records.take_over(run, "token")
    fault_proxy.behave(cut_after_share=1.0, only=r"^PUT .*/trials/1-a\.json", times=1)
    records.begin(run, TRIAL, SIZE, "token")
    fault_proxy.behave(cut_after_share=1.0, only=r"^PUT .*/trials/1-a\.json", times=1)
    commit(run, "token", 8)
    puts = [
        request for request in fault_proxy.requests() if request["method"] == "PUT" and "trials/" in request["path"]
    ]
    assert [request["server_status"] for request in puts] == [200, 412, 200, 412]
    there = read_trial(run, TRIAL.trial_id)
    assert there is not None and there.images_seen == 8 and there.owners == ("token",)


def test_a_late_delete_removes_nothing_of_a_successor(url: str) -> None:
    """The stale process was paused after its write, before it deletes what it no longer needs."""
    run = Store(url)
    records.take_over(run, "old")
    records.begin(run, TRIAL, SIZE, "old")
    commit(run, "old", 8)
    (run / records.checkpoint_folder(TRIAL.trial_id, 12, "old")).replace("state", b"cut off")  # no record names it
    stale = read_trial(run, TRIAL.trial_id)
    assert stale is not None
    taken_over(run)
    before = content(run)
    records.delete_unnamed(run, stale)
    assert content(run) == before
    assert not any("-old" in name for name in before)  # the successor has deleted all that it took over


def test_a_trial_that_was_given_up_writes_no_more(tmp_path: Path) -> None:
    """Its process was cut off and lives on, in the same sweep."""
    run = Store(tmp_path)
    records.take_over(run, "token")
    records.begin(run, TRIAL, SIZE, "token")
    cut_off = trainable(run, "token")
    records.mark_failed(run, TRIAL.trial_id, "token", "died", lost=True)
    before = content(run)
    with pytest.raises(records.NotOwner, match="has ended: lost"):
        cut_off._commit_checkpoint(8, "checkpoints/1-a/8-token", [])
    assert content(run) == before


def test_a_saved_trial_runs_again_once_it_is_taken_over(tmp_path: Path) -> None:
    run = Store(tmp_path)
    records.take_over(run, "old")
    records.begin(run, TRIAL, SIZE, "old")
    trainable(run, "old")._update(lambda current: {"status": "saved"})
    records.take_over(run, "new")
    (claimed,) = records.claim(run, [TRIAL.trial_id], "new")
    assert (claimed.status, claimed.owners) == ("running", ("old", "new"))
    assert records.claim(run, [TRIAL.trial_id], "new") == [claimed]


def test_a_process_that_was_taken_over_claims_and_begins_nothing(tmp_path: Path) -> None:
    run = Store(tmp_path)
    records.take_over(run, "new")
    records.begin(run, TRIAL, SIZE, "new")
    before = content(run)
    for act in (
        lambda: records.claim(run, [TRIAL.trial_id], "old"),
        lambda: records.begin(run, TRIAL, SIZE, "old"),
        lambda: records.begin(run, Trial(**dict(TRIAL) | {"trial_id": "2-b"}), SIZE, "old"),
    ):
        with pytest.raises(records.NotOwner):
            act()
    assert content(run) == before


def test_two_writers_of_one_process_lose_nothing(tmp_path: Path) -> None:
    """The driver and a trial's own process write the same record: each keeps what the other has written."""
    run = Store(tmp_path)
    records.take_over(run, "token")
    records.begin(run, TRIAL, SIZE, "token")

    def count(field: str) -> None:
        def one_more(there: TrialRecord) -> TrialRecord:
            return there.changed(**{field: getattr(there, field) + 1})

        for _ in range(20):
            records.update(run, TRIAL.trial_id, "token", one_more)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count, ("images_seen", "params")))
    there = read_trial(run, TRIAL.trial_id)
    assert there is not None and (there.images_seen, there.params) == (20, 30)
