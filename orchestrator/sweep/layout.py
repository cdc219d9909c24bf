"""How a sweep's trials share CPUs and GPUs, where its specification leaves that open (pure).

Trials of one rank side by side train more images a second than one trial of several ranks: 1.33 times on 2 CPU cores
(benchmarks/results/turnaround.json, `sides`). So a trial gets more ranks only where there are more CPUs than trials.

Several trials share a GPU if their students are small. A step of a small student costs the host 10 to 40 ms, whatever
the GPU, so one trial leaves most of a GPU idle: estimated from the host's time on CPUs, as no GPU was seen so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.spec.sections import Training

RANK_BYTES = 1.5 * 2**30  # resident memory of a rank on a CPU; benchmarks/results/turnaround.json, `memory`: 1.32e9
# On a GPU, of one trial:
CONTEXT_BYTES = 2 * 2**30  # CUDA's context, and what the libraries work in
PARAMETER_BYTES = 40  # weights, gradients, moments, averages, and ZeRO's flat copies and buckets, in fp32
PIXEL_BYTES = 64  # of activations, for each pixel of a batch and each hidden channel
USABLE = 0.9  # of a GPU's memory
# Trials on a GPU, and the most parameters that their students have for so many.
PACKED = ((8, 2_000_000), (4, 8_000_000), (2, 32_000_000))


@dataclass(frozen=True, kw_only=True)
class Node:
    """What Ray gives out on a node."""

    cpus: int
    gpus: int = 0
    memory_bytes: float = math.inf
    gpu_bytes: float = 0.0  # memory of its smallest GPU


class Largest(NamedTuple):
    """The largest of the networks that a sweep trains."""

    parameters: int  # of its largest ladder
    N: int  # the widest
    side: int  # of a training crop, in pixels


class GpuUse(NamedTuple):
    """What one trial was measured to take of a GPU."""

    bytes: float
    share: float  # of the time that the GPU computes


class Layout(NamedTuple):
    """Ranks of a trial, GPUs of a rank, and trials at a time."""

    ranks: int
    gpus: float
    trials: int


def layout(
    training: Training, nodes: Sequence[Node], *, trials: int, at_once: int | None, largest: Largest | None
) -> Layout:
    """Fills in what `training.ranks_per_trial`, `training.gpus_per_rank` and `concurrent_trials` leave open.

    Args:
        training: of the specification; what it gives is kept, whether it fits or not. A trial that is given more ranks
            than there are GPUs trains on CPUs.
        nodes: of Ray.
        trials: of the sweep.
        at_once: `concurrent_trials`.
        largest: needed where there are GPUs and `training.gpus_per_rank` is open.
    """
    cards, ranks = sum(node.gpus for node in nodes), training.ranks_per_trial or 1
    too_many = training.gpus_per_rank is None and _fitting(training, 1.0, nodes) < ranks
    if training.gpus_per_rank == 0 or not cards or too_many:
        ranks, side_by_side = _on_cpus(training, nodes, trials, at_once)
        return Layout(ranks, training.gpus_per_rank or 0.0, side_by_side)
    share = training.gpus_per_rank or 1.0
    if training.gpus_per_rank is None and ranks == 1 and largest is not None:
        with_gpus = [node for node in nodes if node.gpus]
        most = math.ceil(min(trials, at_once or trials) / cards)
        most = min(most, *(node.cpus // node.gpus for node in with_gpus))
        memory = min(node.gpu_bytes for node in with_gpus)
        share = 1 / trials_a_gpu(largest.parameters, trial_bytes(training, largest), memory, most)
    fitting = _fitting(training, share, nodes) // ranks
    return Layout(ranks, share, at_once or max(1, min(trials, fitting)))


def trial_bytes(training: Training, largest: Largest) -> float:
    """A GPU's memory that a trial of one rank takes, estimated from the network and the batch."""
    crops = training.micro_batch_size or training.batch_size
    activations = PIXEL_BYTES * largest.N * crops * largest.side**2
    return CONTEXT_BYTES + PARAMETER_BYTES * largest.parameters + activations


def trials_a_gpu(
    parameters: int, bytes_each: float, gpu_bytes: float, most: int, measured: GpuUse | None = None
) -> int:
    """How many trials of one rank share a GPU: 8, 4, 2 or 1.

    By what was measured, if anything was: as many as fit into USABLE of the memory, and together compute all the time.
    Otherwise by PACKED, and by the estimated memory.

    Args:
        parameters: of the largest student.
        bytes_each: `trial_bytes`.
        gpu_bytes: memory of a GPU.
        most: trials for which a GPU has CPUs, and the sweep has trials.
        measured: of one such trial that had the GPU to itself.
    """
    for count, most_parameters in PACKED:
        if measured is None:
            fits = parameters <= most_parameters and count * bytes_each <= USABLE * gpu_bytes
        else:
            fits = count * measured.bytes <= USABLE * gpu_bytes and count * measured.share <= 1
        if fits and count <= most:
            return count
    return 1


def _on_cpus(training: Training, nodes: Iterable[Node], trials: int, at_once: int | None) -> tuple[int, int]:
    """Ranks of a trial, and trials at a time."""
    fitting = max(1, sum(int(min(node.cpus, node.memory_bytes / RANK_BYTES)) for node in nodes))
    ranks = training.ranks_per_trial
    side_by_side = at_once or max(1, min(trials, fitting // (ranks or 1)))
    if ranks is None:
        each = max(1, fitting // side_by_side)
        ranks = max(count for count in range(1, each + 1) if training.shared_by(count))
    return ranks, side_by_side


def _fitting(training: Training, share: float, nodes: Iterable[Node]) -> int:
    """Ranks with so many GPUs each that fit on the nodes."""
    shared = training.model_copy(update={"gpus_per_rank": share})
    return sum(shared.ranks_on(node.cpus, node.gpus) for node in nodes)
