"""One process of a gang: it trains its share of a trial, and ends when the sweep's process does."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from orchestrator.distill.trial_data import TrialData
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.gang import memory
from orchestrator.sweep.run_folder.checkpoints import fetched, write_checkpoint
from orchestrator.trials.record import Checkpoint, SegmentBytes


class OutOfMemory(RuntimeError):
    """The memory of a rank, or of its GPU, is too small. It replaces torch's exception, which only a process with torch
    can unpickle."""


@dataclass(frozen=True, kw_only=True)
class RankAddress:
    """Where a rank runs."""

    node_id: str  # Ray's
    host: str  # IP address
    port: int | None  # of the rendezvous, which rank 0 opens; None: another rank


@dataclass(frozen=True, kw_only=True)
class RankSegment:
    """What a rank reports of a segment; times in seconds."""

    points: tuple[CurvePoint, ...]  # of the student, the same on all ranks
    losses: dict[str, float]  # term -> mean over the segment, the same on all ranks
    host: str  # this rank's IP address
    files: dict[str, str]  # the checkpoint's files that this rank wrote, name -> SHA-256
    bytes: SegmentBytes  # read and written by this rank
    weights_sha256: str | None  # None: not rank 0
    gap_s: float | None  # from the process's last training step to the first of this segment; None: no step before
    training_s: float
    data_wait_s: float  # of `training_s`
    validation_s: float
    saving_s: float


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The process that runs the sweep."""

    node_id: str  # Ray's
    pid: int

    @classmethod
    def here(cls) -> Driver:
        """This process."""
        return cls(node_id=ray.get_runtime_context().get_node_id(), pid=os.getpid())


def die_with(driver: Driver) -> None:
    """End this process soon after the driver, or after the Ray daemon that started this process.

    After a driver's SIGKILL Ray may take 20 s to end its workers, and they would disturb the restored sweep.
    PR_SET_PDEATHSIG does not help: it watches the parent, which is the daemon and not the driver.
    """
    daemon, same_node = os.getppid(), driver.node_id == ray.get_runtime_context().get_node_id()

    def watch() -> None:
        while os.getppid() == daemon and not (same_node and not Path(f"/proc/{driver.pid}").exists()):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="die-with-driver", daemon=True).start()


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface with an IP address; None: no interface has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(own.address == address for own in addresses):
            return str(name)
    return None


class Rank:
    """One process of a gang, a Ray actor. All ranks get the same calls in the same order."""

    def __init__(self, rank: int, world: int, threads: int, driver: Driver) -> None:
        """`rank` of `world` ranks, each with so many CPU threads."""
        die_with(driver)
        self.rank, self.world = rank, world
        self._run: Any = None
        self._last_step_at: float | None = None
        self._began: float | None = None  # when the present segment began
        self._read = (0.0, 0)  # `TrialRun.reading` when the present segment began
        self._saved_bytes = 0  # of the last checkpoint
        self._rendezvous: Any = None  # on rank 0, open as long as the process group lives
        self.prepare(threads)

    def prepare(self, threads: int) -> None:
        """Set up networking and threads, and do the slow imports."""
        if not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from an actor that asked for none
        # gloo would use the address that the host name resolves to: often 127.0.1.1, which other nodes cannot reach
        if interface := interface_of(ray.util.get_node_ip_address()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # =: this very name, not a prefix
        import torch

        torch.set_num_threads(threads)
        import orchestrator.distill.trial_run  # noqa: F401

    def address(self) -> RankAddress:
        """This process's node and address; rank 0 also opens the gang's rendezvous."""
        host = ray.util.get_node_ip_address()
        port = self.open_rendezvous(host) if self.rank == 0 else None
        return RankAddress(node_id=ray.get_runtime_context().get_node_id(), host=host, port=port)

    def open_rendezvous(self, host: str) -> int:
        """Open the rendezvous of the process group; returns its port, which this process keeps bound."""
        from orchestrator.distill.process_group import open_rendezvous

        self._rendezvous = open_rendezvous(host)
        return int(self._rendezvous.port)

    def join(self, host: str, port: int) -> int:
        """Join the process group at the rendezvous; returns the process id."""
        from orchestrator.distill.process_group import join_process_group

        join_process_group(self.rank, self.world, host, port)
        return os.getpid()

    def build(self, spec: Spec, trial: Trial, data: TrialData, run: Store, start: Checkpoint | None) -> None:
        """Replace the last trial's model and engine with this trial's.

        Args:
            spec: of the sweep.
            trial: the trial to build.
            data: what it reads of the feature store.
            run: the run folder.
            start: the checkpoint to load; None: the trial starts from scratch.

        Raises:
            CheckpointError: the checkpoint is gone or damaged.
            OutOfMemory: the model does not fit.
        """
        if self._run is not None:
            self._run.close()
            self._run = None
        self._began = None
        with _out_of_memory_named():
            self._run = self.trial_run(spec, trial, data)
            if start is not None:
                with fetched(run, start) as folder:
                    self._run.load(folder)

    def trial_run(self, spec: Spec, trial: Trial, data: TrialData) -> Any:
        """The `TrialRun`, imported here since it needs torch."""
        from orchestrator.distill.trial_run import TrialRun

        return TrialRun(spec, trial, data, self.rank, self.world)

    def train(self, images: int) -> None:
        """Train until `images` crops were seen in all, over all ranks. Raises OutOfMemory."""
        if self._began is None:
            self._began, self._read = time.time(), self._run.reading()
        with _out_of_memory_named():
            self._run.advance_to(images)

    def finish(self, run: Store, weights: str, checkpoint: str | None) -> RankSegment:
        """Validate and save at the end of a segment.

        Args:
            run: the run folder.
            weights: the path there for the student's weights.
            checkpoint: the path there for the checkpoint; None: not needed.

        Raises:
            CheckpointError, OutOfMemory.
        """
        trained, (waited_s, read_bytes) = time.time(), self._run.reading()
        began = trained if self._began is None else self._began
        metrics = dict(self._run.take_terms())
        with _out_of_memory_named():
            points = self._run.validate()
        validated = time.time()
        files: dict[str, str] = {}
        digest = None
        weights_bytes = checkpoint_bytes = 0
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "weights.safetensors"
            self._run.export(exported)
            if self.rank == 0:
                data = exported.read_bytes()
                run.replace(weights, data)
                digest = hashlib.sha256(data).hexdigest()
                weights_bytes = len(data)
        if checkpoint is not None:
            files = self.save(run, checkpoint)
            checkpoint_bytes = self._saved_bytes
        first_step_at = metrics.pop("first_step_at", began)
        gap_s = None if self._last_step_at is None else first_step_at - self._last_step_at
        self._last_step_at, self._began = trained, None
        return RankSegment(
            points=tuple(points),
            losses={name: value for name, value in metrics.items() if name != "seconds"},
            host=ray.util.get_node_ip_address(),
            files=files,
            bytes=SegmentBytes(read=read_bytes - self._read[1], checkpoint=checkpoint_bytes, weights=weights_bytes),
            weights_sha256=digest,
            gap_s=gap_s,
            training_s=trained - began,
            data_wait_s=waited_s - self._read[0],
            validation_s=validated - trained,
            saving_s=time.time() - validated,
        )

    def save(self, run: Store, checkpoint: str) -> dict[str, str]:
        """Write a checkpoint, at a rung or within a segment.

        Args:
            run: the run folder.
            checkpoint: the path there.

        Returns:
            Name -> SHA-256 of the files that this rank wrote.

        Raises:
            CheckpointError: it could not be written.
        """

        def write(folder: Path) -> None:
            self._run.save(folder)
            self._saved_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

        return write_checkpoint(write, run / checkpoint)


@contextmanager
def _out_of_memory_named() -> Iterator[None]:
    """Raise OutOfMemory in place of the exceptions that torch raises for it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.raised(error):
            raise
        line = next(iter(str(error).splitlines()), "")
        raise OutOfMemory(f"{type(error).__name__}: {line}") from None
