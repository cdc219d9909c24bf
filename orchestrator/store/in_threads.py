"""Many requests to a store at a time, since each of them mostly waits for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8  # requests at a time

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_threads(act: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[tuple[Item, Answer]]:
    """Each item with its answer, in order; raises what `act` raises."""
    items = list(items)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="store") as pool:
        try:
            yield from zip(items, pool.map(act, items), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)
