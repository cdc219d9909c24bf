"""Repeating a conditional write that another writer was faster than."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from orchestrator.store.errors import StoreError

TRIES = 10
FIRST_PAUSE_S = 0.01  # at most; twice as long each time


def tries(url: str) -> Iterator[None]:
    """Goes round once for each try to read, change and write back a file; the caller leaves when it has succeeded.

    Between two tries it waits for a random time, so that two writers who meet once do not meet again.

    Args:
        url: of the file, for the error.

    Raises StoreError after 10 tries.
    """
    for attempt in range(TRIES):
        yield
        if attempt < TRIES - 1:
            time.sleep(random.uniform(0, FIRST_PAUSE_S * 2**attempt))
    raise StoreError(f"{url}: others keep changing it")
