"""Weights of a run folder that are gone or damaged are named in one line that says what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from orchestrator.trials.weights import LostWeights, lost_weights, read_weights
from testing.records import record
from tests.results.builders import coded_student

AGAIN = "without trials/01-hyperprior-n8-control.json the same command trains this trial again"


def test_weights_are_those_that_the_trial_recorded(tmp_path: Path) -> None:
    run, student = Store(tmp_path), coded_student(weights_digest=hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(LostWeights) as gone:
        read_weights(run, student)
    assert str(gone.value) == f"{run.url}/weights/a.safetensors is gone; {AGAIN}"
    run.replace(student.weights, b"other")
    with pytest.raises(LostWeights) as damaged:
        read_weights(run, student)
    assert str(damaged.value) == f"{run.url}/weights/a.safetensors is damaged: not the recorded SHA-256; {AGAIN}"
    run.replace(student.weights, b"weights")
    assert read_weights(run, student) == b"weights"


def test_each_trial_whose_weights_are_gone_is_one_line(tmp_path: Path) -> None:
    run = Store(tmp_path)
    run.replace("weights/there.safetensors", b"")
    files = {"01-a": "weights/there.safetensors", "02-b": "weights/gone.safetensors", "03-c": None}
    trials = [record(name, weights=weights) for name, weights in files.items()]
    assert lost_weights(run, trials) == [
        f"{run.url}/weights/gone.safetensors is gone; without trials/02-b.json the same command trains this trial again"
    ]
    run.replace("weights/gone.safetensors", b"")
    assert lost_weights(run, trials) == []
