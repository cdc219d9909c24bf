"""The photographs of a sweep or a training: threads look at a few, Ray's tasks at many, and what they find is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from orchestrator.features.fill.fill import answer_of
from orchestrator.logs import say, warn
from orchestrator.photographs.examine import examine
from orchestrator.photographs.survey import Keeping, Survey, in_threads, survey
from orchestrator.spec.sections import Photographs
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected

RAY_FROM = 2048  # files, or
RAY_FROM_BYTES = 2**28  # of tars and large files: less is examined before Ray would have started


def survey_both(
    photographs: Photographs, store: Store, *, train_side: int, validation_side: int
) -> tuple[Survey, Survey]:
    """The photographs for training and for validation; says how many are used, and which are left out.

    Args:
        store: keeps what is found in many files, so that the next start looks at new ones alone.
        train_side, validation_side: pixels that both sides of a photograph need.

    Raises PhotographError, StoreError.
    """
    unfit, keeping = photographs.unfit, Keeping(store=store, say=say, examine=in_tasks)
    held_out = survey(photographs.validation, minimum_side=validation_side, unfit=unfit, keeping=keeping)
    seen = {photograph.digest for photograph in held_out.photographs}
    train = survey(photographs.train, minimum_side=train_side, unfit=unfit, exclude=seen, keeping=keeping)
    for finding in (*held_out.findings, *train.findings):
        warn(f"left out: {finding}")
    say(f"photographs.train {train.summary}")
    say(f"photographs.validation {held_out.summary}")
    return train, held_out


def in_tasks(chunks: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Examines files by Ray tasks of one CPU each, on all nodes; few of them by threads of this process.

    Raises StoreError: S3 cannot be reached; ClusterError: Ray cannot.
    """
    size = sum(pc.sum(chunk["bytes"]).as_py() for chunk in chunks)
    if sum(chunk.num_rows for chunk in chunks) < RAY_FROM and size < RAY_FROM_BYTES:
        yield from in_threads(chunks)
        return
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(connected())
        task = ray.remote(num_cpus=1, max_retries=3)(examine)
        waiting, running = iter(chunks), list[Any]()
        while True:
            cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # asked again: a cluster may grow
            while len(running) < 4 * cpus and (chunk := next(waiting, None)) is not None:
                running.append(task.remote(chunk))
            if not running:
                return
            (ready,), running = ray.wait(running, num_returns=1)
            yield answer_of(ready)
