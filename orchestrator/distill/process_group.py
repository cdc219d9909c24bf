"""Joining a process group of torch.distributed, in the way that DeepSpeed then takes it over."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

JOIN_TIMEOUT = timedelta(minutes=30)  # for the other ranks: while the group is joined, and in its collectives


def open_rendezvous(host: str) -> Any:
    """A TCPStore where the processes of a group meet, listening on a free port that the system chooses.

    It listens as long as the object lives. A port that is found free and bound later may be taken in between.
    """
    return dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def join_process_group(rank: int, world: int, address: str, port: int) -> None:
    """Makes this process rank `rank` of `world`: by nccl where there is a GPU, else by gloo.

    Args:
        address, port: of an open rendezvous.

    Raises:
        torch.distributed.DistError: the others do not join within `JOIN_TIMEOUT`, or the rendezvous is gone.
    """
    # DeepSpeed reads these and asks for mpi4py where one is missing.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": os.environ.get("LOCAL_RANK", "0"),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    compile_nothing()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    rendezvous = dist.TCPStore(address, port, is_master=False, timeout=JOIN_TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=rendezvous, rank=rank, world_size=world, timeout=JOIN_TIMEOUT)
    deepspeed.init_distributed(backend, verbose=False)  # takes over the group


def join_launched_group() -> None:
    """Makes this process the rank that its environment says, as torchrun sets it: RANK, WORLD_SIZE, MASTER_ADDR,
    MASTER_PORT."""
    compile_nothing()
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def compile_nothing() -> None:
    """Keeps DeepSpeed from compiling its shared-memory transport, which only tensor-parallel inference uses.

    It would take a C++ compiler on every node, and minutes before the first rank can join. DeepSpeed leaves out what is
    not in its table of usable operators.
    """
    vars(deepspeed.ops)["__compatible_ops__"] = {}
