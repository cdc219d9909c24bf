"""Fixtures of the tests that train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from orchestrator.distill.process_group import join_process_group, open_rendezvous


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """This process is rank 0 of 1, to the end: DeepSpeed remembers a group that has been destroyed."""
    if torch.distributed.is_initialized():
        yield
        return
    rendezvous = open_rendezvous("127.0.0.1")
    join_process_group(0, 1, "127.0.0.1", rendezvous.port)
    yield
    torch.distributed.destroy_process_group()
