"""Makes the refitted first weights that a sweep's trials begin with, before they do."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray

from orchestrator.distill.refit.stored import StartWork, is_whole, make_start
from orchestrator.store.store import Store
from orchestrator.sweep.pending import Pending
from orchestrator.sweep.plan import Plan


@ray.remote(num_cpus=1)
def _make(store_url: str, work: StartWork) -> tuple[str, float]:
    """Returns the last layers' errors in words, and seconds."""
    began = time.monotonic()
    report = make_start(Store(store_url), work)
    return report.in_words, time.monotonic() - began


def lacking_starts(plan: Plan, store: Store) -> dict[str, StartWork]:
    """The starts of a sweep's trials that a store lacks or has damaged, by name. Raises StoreError."""
    return {name: work for name, work in plan.starts.items() if not is_whole(store, name)}


def begin_starts(
    plan: Plan, store: Store, say: Callable[[str], None], spent: Callable[[float], None] = lambda seconds: None
) -> Pending[StartWork]:
    """Begins to make the starts that the store lacks, by Ray tasks of one CPU each. Ray must run.

    Args:
        plan: of the sweep.
        store: of the features.
        say: takes a line for each start.
        spent: takes the seconds of each task.

    Returns:
        The tasks; they raise WeightsError, PhotographError and StoreError.
    """

    def take(work: StartWork, answer: tuple[str, float]) -> None:
        words, seconds = answer
        spent(seconds)
        say(f"start: {work.title} refitted in {seconds:.0f} s; {words}")

    return Pending({_make.remote(store.url, work): work for work in lacking_starts(plan, store).values()}, take)
