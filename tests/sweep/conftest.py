from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.sweep.cluster import connected


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with connected(num_cpus=2):
        yield
