"""Real process groups for tests, and a small student with its crops to train in them."""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ladder import RateLadder
from models.weights import assign, read_tensors, slice_from
from orchestrator.distill.engine import Engine
from orchestrator.distill.engines import engine_for
from orchestrator.distill.learner import Learner
from orchestrator.distill.losses import distillation_terms
from orchestrator.distill.process_group import join_process_group, open_rendezvous
from orchestrator.distill.targets import Pair
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.survey import survey
from orchestrator.photographs.tensors import cut_tensor
from orchestrator.spec.loss import LossWeights
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Training

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "models" / "weights"
PAIRS = (
    Pair(term="latent", student="y", teacher="y"),
    Pair(term="reconstruction", student="x_hat", teacher="x_hat"),
)
LOSS = LossWeights(latent=0.01, reconstruction=0.1)
M = 96
BATCH = 4


def in_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Each rank's `function(rank, world, *args)`, in fresh processes that share a process group; rank 0's first.

    `function` is one of a module that a fresh process can import.
    """
    rendezvous = open_rendezvous("127.0.0.1")
    with ProcessPoolExecutor(world, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [pool.submit(_joined, rank, world, rendezvous.port, function, *args) for rank in range(world)]
        return [future.result(timeout=500) for future in waiting]


def in_worlds(worlds: tuple[int, ...], function: Callable[..., Any], *args: Any) -> dict[int, list[Any]]:
    """World -> `in_ranks`, all of them side by side."""
    with ThreadPoolExecutor(len(worlds)) as pool:
        return dict(zip(worlds, pool.map(lambda world: in_ranks(world, function, *args), worlds), strict=True))


def _joined(rank: int, world: int, port: int, function: Callable[..., Any], *args: Any) -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)  # of torch.distributed, by DeepSpeed's calls
    torch.set_num_threads(1)
    join_process_group(rank, world, "127.0.0.1", port)
    return function(rank, world, *args)


def untrained(N: int, **kind: Any) -> RateLadder:
    """A ladder with random weights, the same at every call."""
    torch.manual_seed(0)
    return RateLadder(family="hyperprior", N=N, M=M, lambdas=PRIM_LAMBDAS, **kind)


def student(N: int = 42) -> RateLadder:
    """Starts with the leading channels of `teacher`.

    With 42 x 96 x 25 weights in a layer ZeRO 3 parts it; smaller ones it keeps whole.
    """
    ladder = untrained(N)
    slice_from(ladder, teacher())
    return ladder


@cache
def teacher() -> RateLadder:
    ladder = untrained(64)
    assign(ladder, read_tensors(WEIGHTS / "teacher-hyperprior.safetensors"), source="teacher-hyperprior")
    return ladder.eval()


@cache
def crops(count: int = 24, size: int = 64) -> Tensor:
    """[count, 3, size, size] of the training photographs, in 0..1."""
    photographs = survey(ROOT / "data" / "quickstart" / "train", minimum_side=128).photographs
    plan = plan_crops(photographs, Crops(count=count, size=size), len(PRIM_LAMBDAS), seed=1)
    by_digest = {photograph.digest: photograph for photograph in photographs}
    return torch.stack([cut_tensor(by_digest[crop.photograph], crop) for crop in plan.crops])


@cache
def targets(count: int = 24, size: int = 64) -> dict[str, Tensor]:
    """The shipped teacher's y and x_hat (at its highest rate point) of `crops`."""
    with torch.inference_mode():
        outputs = [teacher()(crop[None], len(PRIM_LAMBDAS) - 1) for crop in crops(count, size)]
    return {tap: torch.cat([output[tap] for output in outputs]).clone() for tap in ("y", "x_hat")}


def engine(world: int, *, ladder: RateLadder | None = None, seed: int = 3, **training: Any) -> Engine:
    """An engine for `student`, by default without a map."""
    settings: dict[str, Any] = {"batch_size": BATCH, "ranks_per_trial": world, **training}
    return engine_for(Learner(ladder or student()), Training(**settings), world, seed=seed)


def terms_of(engine: Engine, step: int, rank: int, world: int, stage: int = 2) -> dict[str, Tensor]:
    """A step's terms on this rank's share of the batch: crops that follow one another, all rate points in turn."""
    chosen = [(step * BATCH + index) % len(crops()) for index in range(rank, BATCH, world)]
    x, rate_point = crops()[chosen], step % len(PRIM_LAMBDAS)
    output = engine.forward(x, rate_point, stage, taps=("y",), crops=chosen, step=step)
    gain = engine.ladder.gains[rate_point]
    return distillation_terms(
        output,
        x,
        {tap: value[chosen] for tap, value in targets().items()},
        lmbda=PRIM_LAMBDAS[rate_point],
        gain=gain,
        teacher_gains={"latent": gain, "reconstruction": gain},
        weights=LOSS,
        pairs=PAIRS,
    )


def train(
    engine: Engine,
    steps: range,
    rank: int = 0,
    world: int = 1,
    *,
    stage: int = 2,
    learning_rate: float = 1e-4,
    **step: Any,
) -> list[dict[str, float]]:
    """Each step's terms, the mean over ranks."""
    rows = []
    for index in steps:
        terms = terms_of(engine, index, rank, world, stage)
        engine.step(terms["loss"], learning_rate, **step)
        means = engine.mean_over_ranks(torch.stack([value.detach() for value in terms.values()]))
        rows.append(dict(zip(terms, means.tolist(), strict=True)))
    return rows
