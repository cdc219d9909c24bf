"""What a process asks of S3 and how much memory it holds, watched from inside it."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """The resident memory of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - not a path of ours
        return int(file.read().split()[1]) * PAGE


class Requests:
    """Counts every HTTP request of this process, repeated ones included: those of boto3 (http.client) and of s3fs
    (aiohttp).
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    @contextmanager
    def counting(self) -> Iterator[Requests]:
        import aiohttp

        put, ask = http.client.HTTPConnection.putrequest, aiohttp.ClientSession._request

        def putrequest(connection: Any, *arguments: Any, **options: Any) -> None:
            self._one_more()
            put(connection, *arguments, **options)

        async def request(session: Any, *arguments: Any, **options: Any) -> Any:
            self._one_more()
            return await ask(session, *arguments, **options)

        http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign, assignment]
        aiohttp.ClientSession._request = request  # type: ignore[method-assign, assignment]
        try:
            yield self
        finally:
            http.client.HTTPConnection.putrequest = put  # type: ignore[method-assign]
            aiohttp.ClientSession._request = ask  # type: ignore[method-assign]

    def _one_more(self) -> None:
        with self._lock:
            self.count += 1


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """A thread looks at once, then again and again while the context lasts."""
    over = threading.Event()

    def watch() -> None:
        look()
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Memory:
    """Resident bytes of this process, sampled by a thread: [seconds, MiB] each."""

    def __init__(self, every_s: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._every_s = every_s

    @contextmanager
    def sampled(self) -> Iterator[Memory]:
        began = time.monotonic()

        def look() -> None:
            self.samples.append((round(time.monotonic() - began, 2), round(resident_bytes() / 2**20, 1)))

        with every(self._every_s, look):
            yield self
