"""Processes that fill one shard at the same moment; in a module of its own, which they import in a second."""

from __future__ import annotations

import multiprocessing
import secrets
import time
from dataclasses import replace

from orchestrator.features.fill.publish import Filled, fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.store.store import Store


def race(store: Store, work: ShardWork, racers: int) -> list[Filled]:
    """Spawned: a fork of a process with Ray in it may find a lock that nobody is left to release."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(racers), context.Queue()
    for _ in range(racers):
        own = replace(work, owner=secrets.token_hex(8))
        context.Process(target=_fill, args=(store, own, barrier, answers), daemon=True).start()
    return [answers.get(timeout=120) for _ in range(racers)]


def _fill(store: Store, work: ShardWork, barrier, answers) -> None:
    barrier.wait(60)
    while (filled := fill_shard(store, work)) is None:
        time.sleep(0.1)
    answers.put(filled)
