"""Answers of Ray's tasks are taken as they come."""

from __future__ import annotations

import time

import pytest
import ray

from orchestrator.sweep.pending import Pending

pytestmark = pytest.mark.slow  # a Ray


@ray.remote(num_cpus=0)
def _after(seconds: float) -> float:
    time.sleep(seconds)
    if seconds < 0.1:
        raise KeyError("gone")
    return seconds


def test_answers_are_taken_once_and_an_error_as_soon_as_it_is_asked_for(local_ray: None) -> None:
    taken: list[tuple[str, float]] = []
    pending = Pending(
        {_after.remote(0.2): "a", _after.remote(30.0): "b"}, lambda key, answer: taken.append((key, answer))
    )
    while not taken:
        pending.take_ready()
    pending.take_ready()
    assert taken == [("a", 0.2)]
    failing = Pending({_after.remote(0.0): "a", _after.remote(30.0): "b"}, lambda key, answer: None)
    with pytest.raises(KeyError, match="gone"):
        failing.wait()  # and does not wait for the other one
    Pending[str]({}, lambda key, answer: None).wait()
