"""The Ray that a sweep runs on: the one it was submitted to, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from orchestrator.logs import warn
from orchestrator.spec.messages import SpecError
from orchestrator.spec.spec import Spec
from orchestrator.worker_settings import WORKER_SETTINGS

OBJECT_STORE_BYTES = 256 * 2**20  # specifications and plans pass through it; features and weights do not
REPLACEMENT_S = 600.0  # for a node that takes the place of a lost one
STARTS = 3  # Ray gives its daemons 15 to 30 s, fixed bounds that a loaded machine can miss
SETTINGS = {
    **WORKER_SETTINGS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # announces a change of a default that concerns tasks without GPUs
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results are in the run folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Ray, while the context lasts.

    With RAY_ADDRESS in the environment, as `ray job submit` sets it, the running cluster is joined and left as it is.
    Otherwise a Ray of this process's own is started on the loopback interface, without a dashboard, with token
    authentication (a fresh token if the environment gives none), and ended with the context.

    Args:
        num_cpus: of a Ray of its own; None: the machine's.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    folder = None
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        # RAY_AUTH_MODE is left alone: unset, ray.init turns token authentication on, while a value that is set after
        # Ray was imported goes to Ray's daemons, but not to this process
        if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: a socket's path has at most 107 characters
        _start(folder, num_cpus)
    try:
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _start(folder: str, num_cpus: int | None) -> None:
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
            return
        except Exception as error:  # Ray raises no other type
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def draining() -> frozenset[str]:
    """Ids of the nodes that are about to go: Ray marks its node when `ray start --block` is sent SIGTERM.

    By the call that Ray's own libraries use; there is no public one.
    """
    return frozenset(ray._private.state.state.get_draining_nodes())


def gangs(spec: Spec) -> int:
    """How many of the specification's gangs fit on Ray's nodes at a time."""
    have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    ranks = sum(spec.training.ranks_on(each.get("CPU", 0), each.get("GPU", 0)) for each in have)
    return ranks // spec.training.ranks_per_trial


def trials_at_once(spec: Spec) -> int:
    """How many gangs run at a time: `concurrent_trials`, or fewer if the CPUs or GPUs are fewer.

    Raises:
        SpecError: not even one fits; Ray would wait for ever.
    """
    have, training = ray.cluster_resources(), spec.training
    cpus, gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
    ranks, share = training.ranks_per_trial, training.gpus_per_rank
    if cpus < ranks:
        raise SpecError([f"training.ranks_per_trial: {ranks} is not allowed: at most {cpus}, the CPUs that Ray has"])
    fitting = gangs(spec)
    if not fitting:
        most = f"at most {gpus / ranks:g} for training.ranks_per_trial {ranks}: Ray has {gpus} GPUs"
        if ranks * share <= gpus:
            most = f"at most what one node has: Ray has {gpus} GPUs on several"
        raise SpecError([f"training.gpus_per_rank: {share:g} is not allowed: {most}"])
    if gpus and not share:
        warn(f"training.gpus_per_rank is 0: trials train on CPUs, though Ray has {gpus} GPUs")
    return min(spec.concurrent_trials, fitting)


def room_again(spec: Spec, say: Callable[[str], None]) -> bool:
    """Waits for the nodes that take the place of lost ones, as long as not even one gang fits. False: none came."""
    deadline = time.monotonic() + REPLACEMENT_S
    while not gangs(spec):
        if time.monotonic() > deadline:
            return False
        cpus = int(ray.cluster_resources().get("CPU", 0))
        say(f"waiting for nodes: a trial has {spec.training.ranks_per_trial} ranks, Ray has {cpus} CPUs left")
        time.sleep(REPLACEMENT_S / 40)
    return True
