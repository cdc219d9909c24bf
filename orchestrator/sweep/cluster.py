"""The Ray cluster that a sweep runs on: the one it was submitted to, or its own on this machine."""

from __future__ import annotations

import logging
import os
import resource
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from models.one_line import OneLineError
from orchestrator.caches import settle_caches
from orchestrator.logs import warn
from orchestrator.spec.messages import SpecError, without_credentials
from orchestrator.spec.sections import Training
from orchestrator.spec.spec import Spec
from orchestrator.worker_settings import WORKER_SETTINGS

OBJECT_STORE_BYTES = 256 * 2**20  # holds specifications and plans, but no features and no weights
NODE_REPLACEMENT_S = 600.0  # to wait for the replacement of a lost node
START_ATTEMPTS = 3  # Ray's start-up timeouts, 15 to 30 s and fixed, are too short for a loaded machine
OPEN_FILES = 1024  # at least; with 256 Ray hangs, and its processes and the ranks inherit the limit
SETTINGS = {
    **WORKER_SETTINGS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning of a new default for tasks without GPUs
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results are in the run folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class ClusterError(OneLineError, RuntimeError):
    """Ray cannot be joined or started."""


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """A connection to Ray, while the context lasts.

    With RAY_ADDRESS in the environment, as `ray job submit` sets it, this joins the running cluster. Otherwise it
    starts a cluster on the loopback interface, without a dashboard, with token authentication (a new token unless the
    environment has one), and stops it at the end of the context.

    Args:
        num_cpus: of a cluster started here; None: the machine's.

    Raises:
        CacheError: there is no folder for the caches of this machine.
        ClusterError: Ray cannot be joined or started.
    """
    for line in settle_caches():
        warn(line)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    folder = None
    if os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises no other type
            raise _refused(f"joined at RAY_ADDRESS {os.environ['RAY_ADDRESS']}", error) from error
    else:
        # RAY_AUTH_MODE must stay unset: then ray.init turns token authentication on. If it were set here, after the
        # import of Ray, it would reach Ray's daemons but not this process.
        if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        allow_open_files()
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: paths of sockets have at most 107 characters
        try:
            _start(folder, num_cpus)
        except Exception as error:  # Ray raises no other type
            shutil.rmtree(folder, ignore_errors=True)
            raise _refused("started on this machine", error) from error
    try:
        yield
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            # Ray's compiled code has given SIGTERM its default action back, which Python does not know of
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _refused(what: str, error: Exception) -> ClusterError:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ClusterError(without_credentials(f"Ray cannot be {what}: {line}"))


def allow_open_files() -> None:
    """Raises this process's limit where the system lets it. Raises ClusterError: it lets too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise ClusterError(f"the limit on open files: {hard} is not allowed: at least {OPEN_FILES} (ulimit -n)")
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def _start(folder: str, num_cpus: int | None) -> None:
    for attempt in range(1, START_ATTEMPTS + 1):
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
            if attempt == START_ATTEMPTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def draining() -> frozenset[str]:
    """Ids of the draining nodes: `ray start --block` marks its node as draining when it gets SIGTERM.

    Uses an internal call of Ray's own libraries; there is no public one. Raises RayError: Ray cannot be reached.
    """
    return frozenset(ray._private.state.state.get_draining_nodes())


def gangs_that_fit(training: Training) -> int:
    """How many gangs of so many ranks fit on Ray's live nodes at a time."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    ranks = sum(training.ranks_on(resources.get("CPU", 0), resources.get("GPU", 0)) for resources in nodes)
    return ranks // training.ranks


def check_gang_fits(training: Training) -> int:
    """How many gangs fit at a time.

    Raises:
        SpecError: not even one fits; Ray would wait without end.
    """
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    ranks, share = training.ranks, training.gpus
    if cpus < ranks:
        raise SpecError([f"training.ranks_per_trial: {ranks} is not allowed: at most {cpus}, the CPUs that Ray has"])
    fitting = gangs_that_fit(training)
    if not fitting:
        most = f"at most {gpus / ranks:g} for training.ranks_per_trial {ranks}: Ray has {gpus} GPUs"
        if ranks * share <= gpus:
            most = f"at most what one node has: Ray has {gpus} GPUs on several"
        raise SpecError([f"training.gpus_per_rank: {share:g} is not allowed: {most}"])
    return fitting


def trials_at_once(spec: Spec) -> int:
    """How many gangs run at a time: `concurrent_trials`, or fewer if Ray has too few CPUs or GPUs.

    Args:
        spec: settled (`sweep.settle`).

    Raises SpecError: see `check_gang_fits`.
    """
    fitting = check_gang_fits(spec.training)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus and not spec.training.gpus:
        warn(f"training.gpus_per_rank is 0: trials train on CPUs, though Ray has {gpus} GPUs")
    return min(spec.concurrent_trials or fitting, fitting)


def wait_for_gang(training: Training, say: Callable[[str], None]) -> bool:
    """Wait until at least one gang fits, while lost nodes are replaced.

    Args:
        training: of a trial.
        say: takes a line of progress.

    Returns:
        False: none fitted within NODE_REPLACEMENT_S.
    """
    deadline = time.monotonic() + NODE_REPLACEMENT_S
    while not gangs_that_fit(training):
        if time.monotonic() > deadline:
            return False
        cpus = int(ray.cluster_resources().get("CPU", 0))
        say(f"waiting for nodes: a trial has {training.ranks} ranks, Ray has {cpus} CPUs left")
        time.sleep(NODE_REPLACEMENT_S / 40)
    return True
