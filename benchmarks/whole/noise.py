"""What the quantisation noise of each crop costs, beside the training step that it is drawn for.

    python -m benchmarks.whole.noise [--rounds 9] [--results FOLDER]

Draws of one step against forward and backward of the step, a student of N=16 on 8 crops of 128x128, one thread, in
turn, in alternating order (goal: median of at most 0.05).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.common.command import count
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.common.pairs import MINIMUM, in_turn, ratios
from models.catalogue import build_ladder
from orchestrator.distill.noise import CropNoise
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import PRIM_LAMBDAS

GOAL = 0.05
N, M, CROPS, SIDE = 16, 96, 8, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=9)
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER")
    given = parser.parse_args(arguments)
    machine = facts()
    torch.set_num_threads(1)
    ladder = build_ladder(family="hyperprior", N=N, M=M, lambdas=PRIM_LAMBDAS, kind="variable-rate").train()
    noise, x = CropNoise(ladder, seed=1), torch.rand(CROPS, 3, SIDE, SIDE)
    network = ladder.networks[0]

    def step() -> None:
        noise.begin(range(CROPS), 0)
        output = ladder(x, 2)
        (output["x_hat"].square().mean() - output["likelihoods"]["y"].log().mean()).backward()

    def draws() -> None:
        noise.begin(range(CROPS), 0)
        network.gaussian_conditional.quantize(torch.zeros(CROPS, M, SIDE // 16, SIDE // 16), "noise")
        network.entropy_bottleneck.quantize(torch.zeros(N, 1, CROPS * (SIDE // 64) ** 2), "noise")

    step()  # warm
    arms = {"draws": _timed(draws), "step": _timed(step)}
    rounds = in_turn(arms, max(MINIMUM, given.rounds), print)
    share = ratios(rounds, "draws", "step", "seconds")
    print(f"noise: {share['median']:.2%} of forward and backward, goal {GOAL:.0%}")
    write(given.results, "noise", machine, {"goal": GOAL, "share": share, "rounds": rounds})
    return 0


def _timed(work: Callable[[], None]) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        began = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - began}

    return measure


if __name__ == "__main__":
    main()
