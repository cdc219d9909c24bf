"""k processes joined in one process group, kept warm across trials.

A sweep ends most trials at their first rungs, so start-up is what it would pay most. A gang imports torch and joins its
process group once; a new trial only rebuilds model and engine. Its ranks are Ray actors in the bundles of the trial's
placement group: a gang starts whole or waits.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.spec import Spec, Trial
from orchestrator.store import Store

FIRST_BOUND_S = 1800.0  # for a first answer, when nothing is known of the gang's pace
SLACK_S = 60.0  # on top of PATIENCE times the time that a segment should take
PATIENCE = 10.0
GRIEF_S = 5.0  # how long to look for a death behind a rank's exception


class RankError(RuntimeError):
    """A rank raised `cause`; the message ends with its traceback."""

    cause: BaseException | None = None


class RankLost(RankError):
    """A rank died or gave no answer: the work may be tried again with a new gang."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The process that runs the sweep."""

    node_id: str
    pid: int

    @classmethod
    def here(cls) -> Driver:
        return cls(node_id=ray.get_runtime_context().get_node_id(), pid=os.getpid())


def die_with(driver: Driver) -> None:
    """End this process soon after the driver, or after the Ray daemon that started it.

    After a driver's SIGKILL Ray may take 20 s to end its workers, and a restored sweep must not meet them. The
    daemon is not a parent that PR_SET_PDEATHSIG could watch for us: what must not be outlived is the driver.
    """
    daemon, near = os.getppid(), driver.node_id == ray.get_runtime_context().get_node_id()

    def watch() -> None:
        while os.getppid() == daemon and not (near and not Path(f"/proc/{driver.pid}").exists()):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="die-with-driver", daemon=True).start()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in the run folder. Its path names the sweep's process, so that none writes into another's."""

    images_seen: int
    path: str  # inside the run folder
    files: Mapping[str, str]  # name -> SHA-256


class Rank:
    """One process of a gang. All ranks get the same calls in the same order."""

    def __init__(self, rank: int, world: int, threads: int, driver: Driver) -> None:
        die_with(driver)
        self.rank, self.world = rank, world
        self._run: Any = None
        self._last_step_at: float | None = None
        self.prepare(threads)

    def prepare(self, threads: int) -> None:
        """The slow imports."""
        import torch

        torch.set_num_threads(threads)
        import orchestrator.distill.loop  # noqa: F401

    def address(self) -> tuple[str, int]:
        """This process's host and a port that is free on it."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return host, int(probe.getsockname()[1])

    def join(self, host: str, port: int) -> int:
        """Join the process group; returns the process id."""
        from orchestrator.distill.engine import join_process_group

        join_process_group(self.rank, self.world, host, port)
        return os.getpid()

    def build(self, spec: Spec, trial: Trial, data: Mapping[str, Any], run: Store, start: Checkpoint | None) -> None:
        """Make this trial's model and engine in the place of the last one's, from its checkpoint if it has one."""
        if self._run is not None:
            self._run.close()
            self._run = None
        self._run = self.trial_run(spec, trial, data)
        if start is not None:
            with tempfile.TemporaryDirectory() as folder:
                _fetch(run / start.path, start.files, Path(folder))
                self._run.load(Path(folder))

    def trial_run(self, spec: Spec, trial: Trial, data: Mapping[str, Any]) -> Any:
        from orchestrator.distill.loop import TrialData, TrialRun

        return TrialRun(spec, trial, TrialData(**data), self.rank, self.world)

    def segment(self, images: int, run: Store, weights: str, checkpoint: str | None) -> dict[str, Any]:
        """Train until `images` crops were seen, validate, save.

        Args:
            images: counted over all ranks.
            run: the run folder.
            weights: where in it the student's weights go.
            checkpoint: where in it the checkpoint goes; None: it is not needed.

        Returns:
            images_seen, points, losses; files of the checkpoint that this rank wrote with their SHA-256; weights_sha256
            (rank 0); bytes of this rank: read (out of the store), checkpoint, weights; and times in seconds:
            training_s, data_wait_s (of it), validation_s, saving_s, and gap_s from the end of the segment's training
            before this one to the first step of this one (None in a fresh process).
        """
        began, (waited_s, read_bytes) = time.time(), self._run.reading()
        metrics = dict(self._run.train_to(images))
        trained, (waited_since_s, read_since_bytes) = time.time(), self._run.reading()
        points = self._run.validate()
        validated = time.time()
        files: dict[str, str] = {}
        digest = None
        sizes = {"read": read_since_bytes - read_bytes, "checkpoint": 0, "weights": 0}
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "weights.safetensors"
            self._run.export(exported)
            if self.rank == 0:
                data = exported.read_bytes()
                run.replace(weights, data)
                digest = hashlib.sha256(data).hexdigest()
                sizes["weights"] = len(data)
                exported.unlink()
            if checkpoint is not None:
                self._run.save(Path(folder))
                sizes["checkpoint"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
                files = _publish(Path(folder), run / checkpoint)
        first_step_at = metrics.pop("first_step_at", began)
        gap_s = None if self._last_step_at is None else first_step_at - self._last_step_at
        self._last_step_at = trained
        return {
            "images_seen": int(metrics.pop("images_seen", images)),
            "points": points,
            "losses": {name: value for name, value in metrics.items() if name != "seconds"},
            "files": files,
            "bytes": sizes,
            "weights_sha256": digest,
            "gap_s": gap_s,
            "training_s": trained - began,
            "data_wait_s": waited_since_s - waited_s,
            "validation_s": validated - trained,
            "saving_s": time.time() - validated,
        }


class Gang:
    """k ranks. After a RankError the gang is gone: its ranks are killed, for one that waits in a collective never
    returns."""

    def __init__(
        self,
        *,
        size: int,
        threads: int,
        driver: Driver,
        placement_group: PlacementGroup | None = None,
        rank_class: type[Rank] = Rank,
    ) -> None:
        """Starts the ranks and joins them.

        Args:
            size: number of ranks.
            threads: CPU threads a rank.
            driver: the ranks end when it does.
            placement_group: its last `size` bundles are taken (Tune leaves out an empty head bundle); None: anywhere.

        Raises:
            RankError: a rank did not start.
        """
        self._seconds_per_image: float | None = None
        self._ranks: list[Any] = []
        offset = len(placement_group.bundle_specs) - size if placement_group else 0
        for rank in range(size):
            place: Any = "DEFAULT"
            if placement_group is not None:
                place = PlacementGroupSchedulingStrategy(placement_group, placement_group_bundle_index=offset + rank)
            actor = ray.remote(rank_class).options(num_cpus=1, max_restarts=0, scheduling_strategy=place)
            self._ranks.append(actor.remote(rank, size, threads, driver))
        host, port = self.call("address")[0]
        self.pids: list[int] = self.call("join", host, port)

    @property
    def alive(self) -> bool:
        return bool(self._ranks)

    def call(self, method: str, *args: Any, images: int | None = None) -> list[Any]:
        """All ranks' answers, rank 0's first.

        Args:
            images: how many are trained on by this call; from the gang's pace follows how long an answer may take.

        Raises:
            RankError: as soon as any rank fails; RankLost if one died or the bound has passed.
        """
        bound = FIRST_BOUND_S
        if images is not None and self._seconds_per_image is not None:
            bound = SLACK_S + PATIENCE * self._seconds_per_image * images
        began = time.monotonic()
        answers = self._collect([getattr(rank, method).remote(*args) for rank in self._ranks], bound)
        if images:
            pace = (time.monotonic() - began) / images
            self._seconds_per_image = max(pace, self._seconds_per_image or 0.0)  # students differ in size
        return answers

    def kill(self) -> None:
        """Ends all ranks at once."""
        ranks, self._ranks = self._ranks, []
        for rank in ranks:
            ray.kill(rank, no_restart=True)

    def _collect(self, references: Sequence[Any], bound_s: float) -> list[Any]:
        answers: dict[Any, Any] = {}
        waiting, deadline = list(references), time.monotonic() + bound_s
        while waiting:
            # one at a time: the first failure of any rank surfaces at once, though its peers wait for it for ever
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                silent = [rank for rank, reference in enumerate(references) if reference in waiting]
                self.kill()
                raise RankLost(f"rank {silent[0]} of {len(references)} gave no answer within {bound_s:.0f} s")
            try:
                answers[ready[0]] = ray.get(ready[0])
            except (RayTaskError, RayActorError) as error:
                failure = self._explain(references, ready[0], error, waiting)
                self.kill()
                raise failure from None
        return [answers[reference] for reference in references]

    @staticmethod
    def _explain(references: Sequence[Any], first: Any, error: Exception, waiting: Sequence[Any]) -> RankError:
        """A rank's exception may only be what its peer's death looks like from there, so look for that first."""
        failures = {first: error}
        if isinstance(error, RayTaskError) and waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1, timeout=GRIEF_S)
            for reference in ended:
                try:
                    ray.get(reference)
                except (RayTaskError, RayActorError) as other:
                    failures[reference] = other
        for reference, failure in failures.items():
            if isinstance(failure, RayActorError) and "creation task" not in str(failure):
                # plain text: an ActorDiedError that leaves Tune's trainable counts as the trainable's own death
                return RankLost(f"rank {references.index(reference)} of {len(references)} died: {_cause(failure)}")
        failed = RankError(f"rank {references.index(first)} of {len(references)} failed:\n{_plain(error)}")
        failed.cause = getattr(error, "cause", None)
        return failed


def _plain(error: Exception) -> str:
    """Ray's text without the terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _cause(error: Exception) -> str:
    """The sentence of Ray's text that says how a process ended."""
    text = " ".join(_plain(error).split())
    found = re.search(r"Worker exit detail: (.*?)(?: There are some potential|$)", text)
    return (found[1] if found else text)[:300]


def _publish(folder: Path, store: Store) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        store.replace(name, data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def _fetch(store: Store, files: Mapping[str, str], folder: Path) -> None:
    for name, digest in files.items():
        data = store.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"checkpoint {store.url}/{name} is damaged: its SHA-256 is not the recorded one")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
