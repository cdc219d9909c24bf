"""One watcher a sweep: trials that wait hear of a change at once, and none of them asks Ray or the store."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ray.exceptions import RayError

from orchestrator.sweep.gang import notices
from orchestrator.sweep.gang.notices import Notice, Notices, _Board


def test_all_waiting_trials_are_told_to_leave(local_ray: None) -> None:
    of_sweep = Notices.start()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(of_sweep.after, 0) for _ in range(20)]
        time.sleep(2 * notices.POLL_S)
        assert not any(answer.done() for answer in waiting)
        began = time.monotonic()
        of_sweep.leave()
        assert {answer.result(30) for answer in waiting} == {Notice(number=1, leave=True)}
    assert time.monotonic() - began < 10
    assert of_sweep.after(0) == Notice(number=1, leave=True)  # who asks later hears of it at once
    of_sweep.leave()  # told already


def test_nodes_that_are_about_to_go_are_a_notice_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look a second, however many wait; without an answer there is a new try, and after a while the same notice."""
    seen: list[frozenset[str]] = [frozenset(), frozenset("a"), frozenset("a"), frozenset("ab")]
    looks: list[float] = []

    def draining() -> frozenset[str]:
        looks.append(time.monotonic())
        if len(looks) == 1:
            raise RayError("Ray's head is away")
        return seen.pop(0) if len(seen) > 1 else seen[0]

    monkeypatch.setattr(notices, "draining", draining)
    monkeypatch.setattr(notices, "POLL_S", 0.05)
    monkeypatch.setattr(notices, "LONG_POLL_S", 1.0)

    async def run() -> list[Notice]:
        board = _Board()
        look = asyncio.create_task(board.poll())
        first = await asyncio.gather(*(board.after(0) for _ in range(100)))
        assert set(first) == {Notice(number=1, draining=frozenset("a"))}
        heard = [first[0], await board.after(1), await board.after(2)]
        look.cancel()
        return heard

    heard = asyncio.run(run())
    assert [(notice.number, notice.draining) for notice in heard] == [
        (1, frozenset("a")),
        (2, frozenset("ab")),
        (2, frozenset("ab")),  # nothing new within LONG_POLL_S
    ]
