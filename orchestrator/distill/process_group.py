"""Joining a process group of torch.distributed, in the way that DeepSpeed then takes it over."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from orchestrator.caches import EXTENSIONS, extensions_folder

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
    own_build()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    rendezvous = dist.TCPStore(address, port, is_master=False, timeout=JOIN_TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=rendezvous, rank=rank, world_size=world, timeout=JOIN_TIMEOUT)
    deepspeed.init_distributed(backend, verbose=False)  # takes over the group


def join_launched_group() -> None:
    """Makes this process the rank that its environment says, as torchrun sets it: RANK, WORLD_SIZE, MASTER_ADDR,
    MASTER_PORT."""
    own_build()
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def own_build() -> None:
    """Makes DeepSpeed compile its transport between CPU ranks with this environment's ninja, into its own folder.

    DeepSpeed uses the first ninja in PATH. Ninja 1.13 rebuilds what 1.11 has built, and the reverse; so it does what
    another environment has built, whose include paths differ. Each rebuild costs a minute and a half of CPU time before
    a rank can join.

    Raises:
        CacheError: there is no folder for it.
    """
    programs, paths = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath).split(os.pathsep)
    if paths[0] != programs:
        os.environ["PATH"] = os.pathsep.join([programs, *paths])
    own = hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]
    if EXTENSIONS not in os.environ:
        os.environ[EXTENSIONS] = str(extensions_folder() / own)
