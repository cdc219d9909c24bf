"""In a step the host reads nothing of the device: reads are for the end of a slice."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.engine.worker import CASES, COUNTED, CROPS, HostReads, loop_of

MOST = 2.0  # a step


@pytest.mark.slow  # trains
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_step_waits_for_the_device_at_most_twice(case: Mapping[str, str]) -> None:
    loop = loop_of(**case)
    loop.advance_to(CROPS)
    with HostReads() as short:
        loop.advance_to(2 * CROPS)
    with HostReads() as long:
        loop.advance_to((2 + COUNTED) * CROPS)
    slices, steps = short.reads.total(), long.reads.total() - short.reads.total()
    assert slices >= 1  # whether the run has lost patience
    assert steps / (COUNTED - 1) <= MOST, long.reads
    terms = loop.take_terms()
    assert terms["skipped_steps"] == 0 and terms["loss"] > 0
    loop.close()


def test_reads_are_counted() -> None:
    import torch

    values = torch.arange(3.0)
    with HostReads() as counts:
        assert bool(values[1] > 0)
        values.cpu()
        values.numpy()
        values.nonzero()
        float(values[2])
    assert counts.reads == {"_local_scalar_dense": 2, "cpu": 1, "numpy": 1, "nonzero": 1}
