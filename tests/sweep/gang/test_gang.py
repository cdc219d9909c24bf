from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.sweep.gang.gang import Gang, RankError, RankLost
from orchestrator.sweep.gang.rank import Driver, Rank


class Waiting(Rank):
    """A rank without torch, whose segment waits for its peer as a collective would: forever."""

    def prepare(self, threads: int) -> None:
        pass

    def open_rendezvous(self, host: str) -> int:
        return 0

    def join(self, host: str, port: int) -> int:
        return os.getpid()

    def segment(self, *args: Any) -> dict[str, Any]:
        time.sleep(600)
        return {}

    def raises(self) -> str:
        if self.rank == 1:
            raise ValueError("a wrong setting")
        time.sleep(600)
        return ""

    def breaks_when_its_peer_dies(self) -> None:
        time.sleep(1)
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("connection closed by peer")


class Robbed(Rank):
    """A rank that finds, before it joins, that another process wants the port at which the ranks meet."""

    def prepare(self, threads: int) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def join(self, host: str, port: int) -> int:
        if self.rank == 0:
            self.thief = socket.socket()
            with suppress(OSError):
                self.thief.bind((host, port))
                self.thief.listen()
        return super().join(host, port)

    def added_up(self) -> int:
        """The sum over the ranks: 1 + 2."""
        import torch

        total = torch.tensor([self.rank + 1])
        torch.distributed.all_reduce(total)
        return int(total)


class Unstartable(Waiting):
    def prepare(self, threads: int) -> None:
        raise ImportError("no such library")


@pytest.fixture(autouse=True)
def by_value() -> Any:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def gang(rank_class: type[Rank] = Waiting) -> Gang:
    return Gang(size=2, threads=1, driver=Driver.here(), rank_class=rank_class)


def gone(pid: int, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_killed_rank_ends_the_call_and_its_peer(local_ray: None) -> None:
    ranks = gang()
    killer = threading.Timer(1.0, os.kill, (ranks.pids[1], signal.SIGKILL))
    killer.start()
    with pytest.raises(RankLost, match="rank 1 of 2 died"):
        ranks.call("segment")
    assert not ranks.alive and gone(ranks.pids[0])


def test_a_port_that_somebody_else_wants_is_no_fault(local_ray: None) -> None:
    ranks = gang(Robbed)
    assert ranks.call("added_up") == [3, 3] and ranks.addresses[0].port and ranks.addresses[1].port is None
    ranks.kill()


def test_an_exception_of_one_rank_surfaces_with_its_traceback(local_ray: None) -> None:
    ranks = gang()
    with pytest.raises(RankError, match=r"(?s)rank 1 of 2 failed.*in raises.*a wrong setting") as caught:
        ranks.call("raises")
    assert not isinstance(caught.value, RankLost) and gone(ranks.pids[0])


def test_a_death_is_named_though_its_peer_complains_first(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "orchestrator.sweep.gang.gang.DEATH_REPORT_S", 120.0
    )  # not what is tested: a loaded machine is slow
    with pytest.raises(RankLost, match="rank 1 of 2 died"):
        gang().call("breaks_when_its_peer_dies")


def test_a_silent_rank_is_given_up(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = gang()
    monkeypatch.setattr("orchestrator.sweep.gang.gang.FIRST_CALL_TIMEOUT_S", 2.0)
    with pytest.raises(RankLost, match="rank 0 of 2 gave no answer within 2 s"):
        ranks.call("segment")
    assert gone(ranks.pids[0]) and gone(ranks.pids[1])


def test_a_rank_that_cannot_start_is_an_error_and_not_a_loss(local_ray: None) -> None:
    with pytest.raises(RankError, match=r"(?s)rank [01] of 2 failed.*no such library") as caught:
        gang(Unstartable)
    assert not isinstance(caught.value, RankLost)
