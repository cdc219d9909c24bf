"""What torch.compile of g_a and g_s brings to a training step, beside the same step without it.

    python -m benchmarks.compiled [--students hyperprior:64:bf16 ...] [--threads 1]

One network and one batch; every round trains some steps compiled and some not, in alternating order: forward, the
rate-distortion loss, backward, without DeepSpeed and reading, which neither changes. Compiling is not in the ratio; its
seconds are beside. The goal is a step of at most 0.9 for any of the students, since the field exists for those.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.common.pairs import MINIMUM, in_turn, ratios
from orchestrator.spec.messages import Parser

STUDENTS = ["hyperprior:64:bf16", "hyperprior:64:fp32", "hyperprior:32:bf16", "mean-scale:32:bf16"]
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)
GOAL = 0.9


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, students = facts(), {}
    for name in options.students:
        print(name, flush=True)
        students[name] = compare(name, options)
    best = min(its["compiled_over_plain"]["median"] for its in students.values())
    settings = {name: value for name, value in vars(options).items() if name != "results"}
    goals = {"best_compiled_over_plain": {"value": best, "goal": GOAL, "at": "most"}}
    write(options.results, "compiled", machine, {"settings": settings, "students": students, "goals": goals})
    return 0


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One student, named FAMILY:N:PRECISION."""
    import torch

    from models.ladder import RateLadder
    from orchestrator.distill.losses import bits_per_pixel, image_distortion

    family, N, precision = name.split(":")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ladder = RateLadder(family=family, N=int(N), M=96, lambdas=LAMBDAS).train()
    if precision == "bf16":
        ladder.set_precision(torch.bfloat16)
    x = torch.rand(options.batch_size, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    networks: Any = ladder.networks

    def steps(number: int, compiler: str | None) -> float:
        networks[0].g_a.compiler = networks[0].g_s.compiler = compiler
        began = time.perf_counter()
        for step in range(number):
            ladder.zero_grad(set_to_none=True)
            output: Any = ladder(x, step % len(LAMBDAS))
            rate = bits_per_pixel(output["likelihoods"], x.shape[2] * x.shape[3])
            distortion = image_distortion(output["x_hat"], x, LAMBDAS[step % len(LAMBDAS)], "mse")
            (rate + distortion).backward()
        return (time.perf_counter() - began) / number

    compiling_s = steps(1, "inductor")
    steps(2, None)

    def arm(compiler: str | None) -> Callable[[], dict[str, float]]:
        return lambda: {"step_s": steps(options.steps, compiler)}

    rounds = in_turn(
        {"compiled": arm("inductor"), "plain": arm(None)}, options.rounds, lambda line: print(line, flush=True)
    )
    over = ratios(rounds, "compiled", "plain", "step_s")
    return {"compiled_over_plain": over, "compiling_s": compiling_s, "rounds": rounds}


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--students", nargs="+", default=STUDENTS, metavar="FAMILY:N:PRECISION")
    add("--batch-size", type=count, default=8)
    add("--size", type=count, default=128, help="pixels a side")
    add("--threads", type=count, default=1)
    add("--steps", type=count, default=3, help="of a turn")
    add("--rounds", type=count, default=MINIMUM)
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
