"""What a sweep's nodes train on: their CPUs and GPUs, and whether these have instructions for bf16."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.features.fill.fill import answer_of
from orchestrator.sweep.layout import Node

BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # of a processor that computes in bf16; others emulate it, 2 to 5 times slower
BF16_CAPABILITY = (8, 0)  # CUDA's compute capability from which on GPUs do


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one node trains on."""

    host: str
    node: Node
    cpu_bf16: str | None  # the processor's flag; None: it has none
    capability: tuple[int, int] | None = None  # of its oldest GPU; None: no GPU


def bf16_flag(cpuinfo: str) -> str | None:
    """The flag by which a processor says that it has instructions for bf16; None: it has none.

    Args:
        cpuinfo: the content of /proc/cpuinfo.
    """
    flags = {flag for line in re.findall(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE) for flag in line.split()}
    return next((flag for flag in BF16_FLAGS if flag in flags), None)


def devices() -> list[Device]:
    """Of all live nodes. Ray must run: a task asks each of them, but this one if it has no GPU."""
    here = ray.get_runtime_context().get_node_id()
    asked: list[tuple[str, Node, Any]] = []
    for its in ray.nodes():
        have = its["Resources"]
        node = Node(
            cpus=int(have.get("CPU", 0)), gpus=int(have.get("GPU", 0)), memory_bytes=have.get("memory", math.inf)
        )
        if not its["Alive"] or not node.cpus:
            continue
        answer = None
        if node.gpus or its["NodeID"] != here:
            there = NodeAffinitySchedulingStrategy(its["NodeID"], soft=False)
            # a share of a GPU: Ray may hide all of them from a task that asks for none
            answer = _look.options(scheduling_strategy=there, num_gpus=0.01 * bool(node.gpus)).remote(bool(node.gpus))
        asked.append((str(its.get("NodeManagerAddress", "")), node, answer))
    return [_device(host, node, look(False) if answer is None else answer_of(answer)) for host, node, answer in asked]


def look(gpus: bool) -> tuple[str | None, Sequence[tuple[tuple[int, int], int]]]:
    """This machine's `bf16_flag`, and its GPUs' compute capabilities and bytes of memory, if they are asked for."""
    flag = bf16_flag(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    if not gpus:
        return flag, []
    import torch

    cards = range(torch.cuda.device_count())
    return flag, [
        (torch.cuda.get_device_capability(card), torch.cuda.get_device_properties(card).total_memory) for card in cards
    ]


@ray.remote(num_cpus=0)
def _look(gpus: bool) -> tuple[str | None, Sequence[tuple[tuple[int, int], int]]]:
    return look(gpus)


def _device(host: str, node: Node, looked: tuple[str | None, Sequence[tuple[tuple[int, int], int]]]) -> Device:
    flag, cards = looked
    return Device(
        host=host,
        node=replace(node, gpu_bytes=min((memory for _, memory in cards), default=0)),
        cpu_bf16=flag,
        capability=min((capability for capability, _ in cards), default=None),
    )


def computes_in_bf16(found: Sequence[Device], gpus: bool) -> tuple[bool, str]:
    """Whether everything that ranks may train on has instructions for bf16, and why, in words.

    Args:
        found: of all nodes.
        gpus: they train on GPUs.
    """
    if gpus:
        with_gpus = [device for device in found if device.node.gpus]
        for device in with_gpus:
            if device.capability is None or device.capability < BF16_CAPABILITY:
                return False, f"node {device.host} has {_named(device.capability)}"
        oldest = min(device.capability for device in with_gpus if device.capability is not None)
        return True, f"the GPUs have compute capability {_dotted(oldest)} or more"
    for device in found:
        if device.cpu_bf16 is None:
            return False, f"the processor of node {device.host} has none of {', '.join(BF16_FLAGS)}"
    return True, f"the processors have {', '.join(sorted({str(device.cpu_bf16) for device in found}))}"


def _named(capability: tuple[int, int] | None) -> str:
    return "no GPU that CUDA sees" if capability is None else f"a GPU of compute capability {_dotted(capability)}"


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
