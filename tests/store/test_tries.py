"""Writers of one file that meet wait for random times; one that never gets its turn says so."""

import time

import pytest

from orchestrator.store.errors import StoreError
from orchestrator.store.tries import TRIES, tries


def test_pauses_between_tries_are_random_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[tuple[float, ...]] = []
    for _ in range(20):
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        seen = 0
        with pytest.raises(StoreError, match=r"^s3://bucket/file: others keep changing it$"):
            for _ in tries("s3://bucket/file"):
                seen += 1
        assert seen == TRIES
        assert len(slept) == TRIES - 1
        assert all(0 <= pause <= 0.01 * 2**turn for turn, pause in enumerate(slept))
        pauses.append(tuple(slept))
    assert len(set(pauses)) == 20
    assert max(pause[-1] for pause in pauses) > 1.0  # of at most 2.56 s


def test_the_first_try_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda pause: pytest.fail("waited"))
    for _ in tries("file:///a"):
        break
