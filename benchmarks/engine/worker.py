"""Steps of tiny students, timed on request: a program of its own, which may run the packages of another commit.

It reads commands, one a line, `time CASE` or `count CASE`, and answers each with a line of JSON; the end of the input
ends it. What it imports of this project is what both commits have.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.catalogue import build_ladder
from models.weights import WeightsDescription
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop
from orchestrator.distill.process_group import join_process_group, open_rendezvous
from orchestrator.features.read.batch import Batch
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import PRIM_LAMBDAS, Training

CROPS, SIDE, WARM_UP, STEPS, COUNTED = 2, 64, 20, 50, 10  # multiples of the rate points: all networks alike
CASES: Mapping[str, dict[str, Any]] = {
    "variable-rate": {"family": "hyperprior", "kind": "variable-rate", "preset": "prim-l1"},
    "fixed-lambda": {"family": "hyperprior", "kind": "fixed-lambda", "preset": "prim-l1"},
    "feds-student": {"family": "feds-student", "kind": "variable-rate", "preset": "feds-single-phase"},
}
READS = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero")
METHODS = ("cpu", "numpy", "tolist")  # which no operator shows where tensors are on the CPU already


class HostReads(TorchDispatchMode):
    """Counts all operators, and places where the host would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.reads: Counter[str] = Counter()

    def __enter__(self) -> HostReads:
        self._methods = {name: getattr(torch.Tensor, name) for name in METHODS}
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, self._counting(name, method))
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, method)

    def _counting(self, name: str, method: Any) -> Any:
        def counted(tensor: torch.Tensor, *args: Any, **given: Any) -> Any:
            self.reads[name] += 1
            return method(tensor, *args, **given)

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.operators += 1
        if name in READS:
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


class Constant:
    """A reader of the same crops and targets at every step; the rate points come in turn."""

    def __init__(self, targets: Mapping[str, torch.Tensor]) -> None:
        self._x, self._targets = torch.rand(CROPS, 3, SIDE, SIDE), targets

    def batch(self, step: int) -> Batch:
        return Batch(x=self._x, rate_point=step % len(PRIM_LAMBDAS), crops=tuple(range(CROPS)), targets=self._targets)


def loop_of(family: str, kind: Any, preset: Any) -> Loop:
    """A student so small that its arithmetic hardly counts."""
    torch.manual_seed(0)
    form: dict[str, Any] = {"family": family, "N": 8, "M": 20, "lambdas": PRIM_LAMBDAS, "kind": kind}
    student = build_ladder(**form)
    described = WeightsDescription(**form, Z=8, encoder_N=8, distortion="mse", notes={})
    loss = Loss(preset=preset)
    bits = tuple((1.0,) * 20 for _ in PRIM_LAMBDAS)
    distillation = Distillation.of(loss, student, described, images=10**9, bits=bits)
    with torch.no_grad():
        output = student(
            torch.rand(CROPS, 3, SIDE, SIDE), 0, taps=sorted({pair.student for pair in distillation.pairs})
        )
    targets = {pair.teacher: output[pair.student].clone() for pair in distillation.pairs}
    return Loop(
        ladder=student,
        training=Training(batch_size=CROPS, ranks_per_trial=1, zero_stage=1),
        reader=Constant(targets),
        learning_rate=lambda images: 1e-4,
        distillation=distillation,
    )


def measured(loop: Loop, steps: int) -> dict[str, float]:
    """This thread's CPU time a step in ms, and the wall clock's."""
    began, at = time.thread_time(), time.perf_counter()
    loop.train_to(loop.images_seen + steps * CROPS)
    return {
        "host_ms": 1e3 * (time.thread_time() - began) / steps,
        "wall_ms": 1e3 * (time.perf_counter() - at) / steps,
    }


def counted(loop: Loop) -> dict[str, Any]:
    """Operators and reads of the host, a step. A segment's end, which reads too, counts."""
    with HostReads() as counts:
        loop.train_to(loop.images_seen + COUNTED * CROPS)
    reads = {name: count / COUNTED for name, count in counts.reads.items()}
    return {"operators": counts.operators / COUNTED, "host_reads": sum(reads.values()), "reads": reads}


def main() -> None:
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(False)  # what it prepares for a convolution takes longer than so small a one
    rendezvous = open_rendezvous("127.0.0.1")
    join_process_group(0, 1, "127.0.0.1", rendezvous.port)
    loops = {name: loop_of(**case) for name, case in CASES.items()}
    for loop in loops.values():
        measured(loop, WARM_UP)
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        answer = counted(loops[name]) if command == "count" else measured(loops[name], STEPS)
        print(json.dumps(answer), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
