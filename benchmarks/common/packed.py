"""Processes that train students side by side on one device, as packed trials do: each a rank of its own.

They start once. A measurement gives some of them the same task; each builds its student, warms up and says so, and when
all have, all begin at once.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.common.packed_data import Task, open_batches
from benchmarks.common.process import join_alone

WARM_STEPS = 6  # before the clock: the first steps allocate, and choose algorithms
STEPS_AT_ONCE = 4
RATES = (0.0018, 0.0035, 0.0067, 0.013, 0.025)


class TooLong(RuntimeError):
    """A measurement ran past its time; its processes were ended."""


class Pool:
    """Processes that wait for tasks.

    Args:
        device: cpu | cuda.
        count: how many.
    """

    def __init__(self, device: str, count: int) -> None:
        self._device, self._context = device, multiprocessing.get_context("spawn")
        self._workers: list[tuple[Any, Connection]] = []
        self._grow(count)

    def _grow(self, count: int) -> None:
        while len(self._workers) < count:
            here, there = self._context.Pipe()
            process = self._context.Process(target=serve, args=(there, self._device), daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))

    def run(self, tasks: Sequence[Any], limit_s: float, at_start: Any = None) -> list[dict[str, Any]]:
        """What the processes measured, one task each; all begin at once.

        Args:
            tasks: at most as many as there are processes.
            limit_s: for all of it.
            at_start: called when they begin.

        Raises:
            TooLong: they are ended then, and others started for the next measurement.
            RuntimeError: a process raised; one line.
        """
        deadline, count = time.monotonic() + limit_s, len(self._workers)
        pipes = [pipe for _, pipe in self._workers[: len(tasks)]]
        try:
            for pipe, task in zip(pipes, tasks, strict=True):
                pipe.send(task)
            for pipe in pipes:
                self._receive(pipe, deadline)  # warm
            if at_start is not None:
                at_start()
            for pipe in pipes:
                pipe.send("go")
            return [self._receive(pipe, deadline) for pipe in pipes]
        except (TooLong, RuntimeError, OSError, EOFError):
            self.close()
            self._grow(count)
            raise

    @staticmethod
    def _receive(pipe: Connection, deadline: float) -> Any:
        if not wait([pipe], max(0.0, deadline - time.monotonic())):
            raise TooLong("ran past its time")
        answer = pipe.recv()
        if isinstance(answer, Exception):
            raise RuntimeError(f"{type(answer).__name__}: {next(iter(str(answer).splitlines()), '')}"[:300])
        return answer

    def close(self) -> None:
        """Ends all processes."""
        workers, self._workers = self._workers, []
        for process, pipe in workers:
            process.kill()
            process.join()
            pipe.close()


def serve(pipe: Connection, device: str) -> None:
    """A process of the pool: it does task after task until the pipe closes."""
    import os

    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    join_alone(1)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: Any = task.run(pipe) if hasattr(task, "run") else measure(task, pipe)
        except Exception as error:  # to be raised where it was asked for
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        pipe.send(answer)


def measure(task: Task, pipe: Connection) -> dict[str, Any]:
    """Trains for so many seconds; crops a second, the share of waiting for batches, peak bytes of device memory."""
    import torch

    from models.ladder import RateLadder
    from orchestrator.distill.distillation import Distillation
    from orchestrator.distill.loop import Loop
    from orchestrator.spec.loss import Loss
    from orchestrator.spec.sections import Training

    cuda = task.device == "cuda"
    torch.manual_seed(0)
    ladder = RateLadder(family=task.family, N=task.N, M=96, Z=64, lambdas=RATES)
    if task.compiler is not None:
        ladder.compile_transforms(task.compiler)
    batches, described = open_batches(task)
    loop = Loop(
        ladder=ladder,
        training=Training(batch_size=task.batch, ranks_per_trial=1, precision=task.precision),
        reader=batches,
        learning_rate=lambda images: 1e-5,
        distillation=Distillation.of(Loss(preset="prim-l1"), ladder, described, images=1),
    )

    def advance(steps: int) -> None:
        loop.advance_to(loop.images_seen + steps * task.batch)

    try:
        advance(WARM_STEPS)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        pipe.send("warm")
        pipe.recv()
        seen, waited, began = loop.images_seen, batches.waited_s, time.monotonic()
        while time.monotonic() - began < task.seconds:
            advance(STEPS_AT_ONCE)
        if cuda:
            torch.cuda.synchronize()
        elapsed = time.monotonic() - began
        return {
            "crops_per_s": (loop.images_seen - seen) / elapsed,
            "step_ms": 1000 * elapsed * task.batch / (loop.images_seen - seen),
            "parameters": sum(parameter.numel() for parameter in ladder.parameters()),
            "waited_share": (batches.waited_s - waited) / elapsed,
            "memory_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        }
    finally:
        batches.close()
        loop.close()
        if cuda:
            torch.cuda.empty_cache()
