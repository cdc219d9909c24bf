"""One rank trains the same with and without DeepSpeed; checkpoints say which of the two wrote them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.distill.engine import MARK, PARTS, Engine, OtherCheckpoint
from orchestrator.distill.engine_deepspeed import DeepSpeedEngine
from orchestrator.distill.engine_plain import PlainEngine
from orchestrator.distill.engines import engine_for
from orchestrator.distill.learner import Learner
from orchestrator.spec.sections import Training
from tests.distill.ranks import BATCH, in_ranks, student, train, untrained

pytestmark = pytest.mark.slow  # trains, in a process of its own

ENGINES: tuple[type[Engine], ...] = (PlainEngine, DeepSpeedEngine)
STEPS, LEARNING_RATE = 50, 1e-5  # in stage 1, which rounds nothing, see test_equal.py
RUNS: dict[str, dict[str, Any]] = {
    "variable-rate": {"zero_stage": 1, "clip_norm": 0.5},
    "variable-rate without ZeRO": {"zero_stage": 0, "clip_norm": 0.5},
    "fixed-lambda": {"zero_stage": 1, "kind": "fixed-lambda", "ema": 0.9},
    "soap": {"zero_stage": 0, "optimizer": "soap", "clip_norm": 0.5},
    "micro-batches and frozen parts": {"zero_stage": 1, "micro_batch_size": 2, "frozen": ("g_a", "entropy")},
}


def both(rank: int, world: int) -> dict[str, list[list[dict[str, float]]]]:
    """Run -> each step's terms, of each engine."""
    return {name: [run(of, **options) for of in ENGINES] for name, options in RUNS.items()}


def run(of: type[Engine], kind: Any = None, frozen: tuple[str, ...] = (), **options: Any) -> list[dict[str, float]]:
    ladder = untrained(8, kind=kind) if kind else student(8)
    engine = of(Learner(ladder), Training(batch_size=BATCH, ranks_per_trial=1, **options), 1, seed=3)
    rows = train(engine, range(STEPS), stage=1, learning_rate=LEARNING_RATE, frozen=frozen)
    with engine.averaged():
        squares = sum(float(value.detach().double().square().sum()) for value in engine.ladder.parameters())
    engine.close()
    return [*rows, {"averaged weights": squares}]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[list[dict[str, float]]]]:
    (of_rank,) = in_ranks(1, both)
    return dict(of_rank)


@pytest.mark.parametrize("name", RUNS)
def test_one_rank_trains_the_same_with_and_without_deepspeed(rows, name: str) -> None:
    plain, expected = rows[name]
    largest = max(abs(row[term] / of[term] - 1) for row, of in zip(plain, expected, strict=True) for term in of)
    print(f"{name}: {largest:.1e} over {STEPS} steps")
    assert expected[45] != expected[0] and largest < 1e-6


@pytest.mark.parametrize(("zero_stage", "of"), [(0, PlainEngine), (1, PlainEngine), (2, DeepSpeedEngine)])
def test_one_rank_without_parts_needs_no_deepspeed(process_group, zero_stage: Any, of: type[Engine]) -> None:
    engine = engine_for(Learner(student(8)), Training(batch_size=BATCH, zero_stage=zero_stage), 1, seed=0)
    assert type(engine) is of
    engine.close()


def test_a_step_may_freeze_everything(process_group) -> None:
    engine = engine_for(Learner(student(8)), Training(batch_size=BATCH, zero_stage=0), 1, seed=0)
    before = [parameter.detach().clone() for parameter in engine.ladder.parameters()]
    train(engine, range(2), frozen=PARTS)
    assert all(torch.equal(value, of) for value, of in zip(engine.ladder.parameters(), before, strict=True))
    assert engine.skipped_steps == 0
    engine.close()


def test_a_bucket_is_as_large_as_the_network(process_group) -> None:
    """DeepSpeed's default is 2 GB, on every rank."""
    engine = engine_for(Learner(student(8)), Training(batch_size=BATCH, zero_stage=2), 1, seed=0)
    assert isinstance(engine, DeepSpeedEngine)
    hidden = sum(quantiles.numel() for quantiles in engine.ladder.quantiles())
    trained = sum(parameter.numel() for parameter in engine.ladder.parameters()) - hidden
    assert engine._optimizer.reduce_bucket_size == trained
    engine.close()


def test_a_checkpoint_of_another_engine_or_format_is_one_line(process_group, tmp_path: Path) -> None:
    plain, parted = (Training(batch_size=BATCH, zero_stage=stage) for stage in (1, 2))
    folders = {}
    for name, training in (("plain", plain), ("deepspeed", parted)):
        engine = engine_for(Learner(student(8)), training, 1, seed=0)
        folders[name] = tmp_path / name
        folders[name].mkdir()
        engine.save(folders[name], 8)
        engine.close()
    shutil.copytree(folders["deepspeed"], tmp_path / "older")
    (tmp_path / "older" / MARK).unlink()  # as the versions before wrote it
    (tmp_path / "empty").mkdir()
    for training, name, expected in (
        (plain, "deepspeed", "a checkpoint of format 2, DeepSpeedEngine, not of format 2, PlainEngine; "),
        (parted, "plain", "a checkpoint of format 2, PlainEngine, not of format 2, DeepSpeedEngine; "),
        (parted, "older", "a checkpoint of format 1, not of format 2, DeepSpeedEngine; "),
        (plain, "older", "a checkpoint of format 1, not of format 2, PlainEngine; "),
    ):
        engine = engine_for(Learner(student(8)), training, 1, seed=0)
        with pytest.raises(OtherCheckpoint, match=expected):
            engine.load(tmp_path / name)
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            engine.load(tmp_path / "empty")
        engine.close()
