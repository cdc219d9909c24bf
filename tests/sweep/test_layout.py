"""How trials share CPUs and GPUs, where the specification leaves it open."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.sections import Training
from orchestrator.sweep.layout import RANK_BYTES, GpuUse, Largest, Layout, Node, layout, trial_bytes, trials_a_gpu

SMALL = Largest(parameters=600_000, N=64, side=256)
LARGE = Largest(parameters=60_000_000, N=320, side=256)
H200 = 141e9


def chosen(
    nodes: list[Node], trials: int = 15, at_once: int | None = None, largest: Largest | None = None, **training: Any
) -> Layout:
    return layout(Training(**training), nodes, trials=trials, at_once=at_once, largest=largest)


@pytest.mark.parametrize(
    ("cpus", "given", "expected"),
    [
        ([2], {}, (1, 0.0, 2)),  # side by side, 1.33 times faster than one trial of two ranks
        ([16], {}, (1, 0.0, 15)),  # no more than there are trials
        ([2, 2], {}, (1, 0.0, 4)),
        ([16], {"trials": 3}, (4, 0.0, 3)),  # CPUs are left: ranks that share a batch of 8 evenly, so not 5
        ([16], {"trials": 3, "micro_batch_size": 4}, (2, 0.0, 3)),
        ([2], {"at_once": 1}, (2, 0.0, 1)),
        ([2], {"ranks_per_trial": 2}, (2, 0.0, 1)),
        ([8], {"ranks_per_trial": 2, "at_once": 3}, (2, 0.0, 3)),
        ([1], {"ranks_per_trial": 2}, (2, 0.0, 1)),  # given: whether it fits is said elsewhere
    ],
)
def test_on_cpus_trials_of_one_rank_go_side_by_side(
    cpus: list[int], given: dict[str, Any], expected: tuple[int, float, int]
) -> None:
    assert chosen([Node(cpus=count) for count in cpus], **given) == expected


def test_memory_bounds_the_trials_on_a_node() -> None:
    assert chosen([Node(cpus=16, memory_bytes=5.5 * RANK_BYTES)]) == Layout(1, 0.0, 5)
    assert chosen([Node(cpus=16, memory_bytes=1.0)]) == Layout(1, 0.0, 1)


@pytest.mark.parametrize(
    ("node", "given", "expected"),
    [
        (Node(cpus=16, gpus=1, gpu_bytes=H200), {"largest": SMALL, "trials": 100}, (1, 0.125, 8)),
        (Node(cpus=16, gpus=1, gpu_bytes=H200), {"largest": LARGE, "trials": 100}, (1, 1.0, 1)),
        (Node(cpus=16, gpus=1, gpu_bytes=20e9), {"largest": SMALL, "trials": 100}, (1, 0.25, 4)),
        (Node(cpus=16, gpus=4, gpu_bytes=H200), {"largest": SMALL, "trials": 100}, (1, 0.25, 16)),  # 4 CPUs a GPU
        (Node(cpus=64, gpus=4, gpu_bytes=H200), {"largest": SMALL, "trials": 8}, (1, 0.5, 8)),  # no GPU is left idle
        (Node(cpus=64, gpus=4, gpu_bytes=H200), {"largest": SMALL, "at_once": 4}, (1, 1.0, 4)),
        (Node(cpus=16, gpus=4, gpu_bytes=H200), {"ranks_per_trial": 2}, (2, 1.0, 2)),  # NCCL: a rank a GPU
        (Node(cpus=16, gpus=1, gpu_bytes=H200), {"ranks_per_trial": 2}, (2, 0.0, 8)),
        (Node(cpus=16, gpus=1, gpu_bytes=H200), {"gpus_per_rank": 0.5}, (1, 0.5, 2)),
        (Node(cpus=4, gpus=1, gpu_bytes=H200), {"gpus_per_rank": 0.0}, (1, 0.0, 4)),
    ],
)
def test_small_students_share_a_gpu(node: Node, given: dict[str, Any], expected: tuple[int, float, int]) -> None:
    assert chosen([node], **given) == expected


def test_what_was_measured_goes_before_the_rule() -> None:
    rule = {"parameters": 600_000, "bytes_each": 3e9, "gpu_bytes": H200, "most": 8}
    assert trials_a_gpu(**rule) == 8  # type: ignore[arg-type]
    assert trials_a_gpu(**rule, measured=GpuUse(bytes=3e9, share=0.3)) == 2  # type: ignore[arg-type]
    assert trials_a_gpu(**rule, measured=GpuUse(bytes=40e9, share=0.1)) == 2  # type: ignore[arg-type]
    assert trials_a_gpu(**rule | {"parameters": 10**9}, measured=GpuUse(bytes=3e9, share=0.1)) == 8  # type: ignore[arg-type]
    assert trials_a_gpu(**rule | {"most": 3}) == 2  # type: ignore[arg-type]


def test_a_trial_s_memory_grows_with_the_batch_that_goes_through_at_once() -> None:
    whole, micro = (trial_bytes(Training(batch_size=16, micro_batch_size=size), SMALL) for size in (None, 4))
    assert whole > micro > trial_bytes(Training(batch_size=1), SMALL) > 2 * 2**30
