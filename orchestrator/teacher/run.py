"""Trains one rate ladder on photographs: in workers of Ray Train, or in ranks that torchrun started.

A run folder results/name, local or on S3, holds spec.yaml and inputs.json (what it was made from), teacher.json (how
far it has come), log.jsonl (a row a check), checkpoints/ (the latest), name.safetensors (of the latest check).
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from typing import Any

from models.one_line import one_line
from orchestrator.logs import log_file, say, warn
from orchestrator.spec.messages import SpecError
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.section import refusal
from orchestrator.spec.sections import Training
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import check_gang_fits, connected, wait_for_gang
from orchestrator.sweep.gang.rank import Driver, die_with
from orchestrator.sweep.plan import check_servers
from orchestrator.sweep.preemption import Preempted, SigtermHandler
from orchestrator.sweep.run_folder.inputs import INPUTS, SPEC, check_files, open_folder
from orchestrator.sweep.run_folder.records import NotOwner
from orchestrator.teacher.desk import Desk
from orchestrator.teacher.plan import TeacherPlan, TrainingError, Work, weights_file
from orchestrator.teacher.record import claim, read_record, weights_intact

MAX_TRIES = 2  # from one checkpoint, when workers die; an exception is not tried again, since it would come back
POLL_S = 0.5  # between two looks at what the workers say


def train_with_ray(recipe: Recipe) -> None:
    """Train to the end, in `training.ranks_per_trial` workers of Ray Train; new, or continued.

    Args:
        recipe: with absolute paths.

    Raises:
        SpecError, WeightsError, PhotographError, CropError, FormatError: before anything is written.
        StoreError: the run folder cannot be used.
        TrainingError, CheckpointError: the training failed; the same command goes on from the last checkpoint.
        NotOwner: another process trains this teacher now.
        Preempted: SIGTERM; the training is saved.
    """
    plan = TeacherPlan.of(recipe)
    run = Store(recipe.results) / recipe.name
    if _finished(run, plan):
        return
    sigterm = SigtermHandler(recipe.preemption.grace_s)
    with sigterm.installed(), tempfile.TemporaryDirectory() as scratch, connected():
        sigterm.install()
        training = _with_gpus(recipe.training)
        check_gang_fits(training)
        with _begun(run, plan) as work:
            desk = Desk.start()
            with sigterm.saving_trials(run, desk):
                _train_workers(work, training, desk, scratch)
                seen = _seen(run)
                if seen < recipe.images:
                    raise Preempted(f"{recipe.name} is saved at {seen} of {recipe.images} images")
            _say_finished(run, recipe)


def train_here(recipe: Recipe) -> None:
    """As `train_with_ray`, as one rank whose place torchrun's environment gives (RANK, WORLD_SIZE, MASTER_ADDR, ...).

    Rank 0 plans, writes and speaks; all ranks raise what it raises.
    """
    rank, world = _launched()

    import torch.distributed as dist

    from orchestrator.distill.process_group import join_launched_group
    from orchestrator.teacher.ranks import train

    here = _Here()
    recipe = _of_world(recipe, world)
    join_launched_group()
    with ExitStack() as stack:
        begun: list[Any] = [None]
        if rank == 0:
            try:
                plan = TeacherPlan.of(recipe)
                run = Store(recipe.results) / recipe.name
                if not _finished(run, plan):
                    begun = [stack.enter_context(_begun(run, plan))]
            except Exception as error:  # to be raised on all ranks
                begun = [error]
        dist.broadcast_object_list(begun, src=0)
        if isinstance(begun[0], Exception):
            raise begun[0]
        work: Work | None = begun[0]
        if work is None:
            return
        if not train(work, rank, world, here):
            raise Preempted(f"{recipe.name} is saved at {_seen(work.run)} of {recipe.images} images")
        if rank == 0:
            _say_finished(work.run, recipe)


class _Here:
    """The process group that torchrun started, as its rank 0 sees it: torchrun passes SIGTERM on to all ranks."""

    def __init__(self) -> None:
        self._told = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._told.set())

    def say(self, line: str) -> None:
        say(line)

    def leaving(self) -> bool:
        return self._told.is_set()


def _launched() -> tuple[int, int]:
    """RANK and WORLD_SIZE. Raises SpecError: the environment is not one that torchrun sets."""
    numbers = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    instead = "{} as torchrun sets it, or no RANK, to train under Ray"
    problems = [
        refusal(name, os.environ.get(name), instead.format("a whole number,"))
        for name in numbers
        if not os.environ.get(name, "").isdecimal()
    ]
    if not os.environ.get("MASTER_ADDR"):
        problems.append(refusal("MASTER_ADDR", os.environ.get("MASTER_ADDR"), instead.format("a host,")))
    if problems:
        raise SpecError(problems[:1])
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def _of_world(recipe: Recipe, world: int) -> Recipe:
    """The recipe with torchrun's number of ranks. Raises SpecError: they cannot share a batch."""
    training = recipe.training.model_copy(update={"ranks_per_trial": world})
    problems = [*training.problems()]
    if problems:
        raise SpecError(problems)
    return recipe.model_copy(update={"training": training})


def _with_gpus(training: Training) -> Training:
    """A recipe's ranks take a GPU each, if Ray has any."""
    import ray

    return training.model_copy(update={"gpus_per_rank": 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0})


def _finished(run: Store, plan: TeacherPlan) -> bool:
    """Whether nothing is left to do; says so.

    Raises:
        SpecError: the folder is another teacher's, or holds something else.
        FormatError, StoreError.
    """
    check_servers(run)
    check_files(run)
    if not run.exists(INPUTS):
        others = [name for name in run.list() if name not in (SPEC, "versions.json", "sweep.log")]
        if others:
            instead = f"another name, since {run.url} holds no teacher of this version but {others[0]}"
            raise SpecError([refusal("name", plan.recipe.name, instead)])
        return False
    open_folder(run, plan.recipe, plan.inputs, "teacher")
    record = read_record(run)
    if record is None or record.images_seen < plan.recipe.images or not weights_intact(run, plan.recipe, record):
        return False
    say(f"finished before, nothing to do: {run.url}")
    _say_finished(run, plan.recipe)
    return True


@contextmanager
def _begun(run: Store, plan: TeacherPlan) -> Iterator[Work]:
    """The run folder is this process's, and messages go into its log while the context lasts."""
    open_folder(run, plan.recipe, plan.inputs, "teacher")
    with log_file(run.folder):
        token = secrets.token_hex(8)
        claim(run, token)
        yield Work(plan=plan, run=run, token=token)


def _train_workers(work: Work, training: Training, desk: Desk, scratch: str) -> None:
    """Run the workers until they finish or are told to leave; start them again where some died."""
    tries: Counter[int] = Counter()  # images seen at the start -> tries from there
    while True:
        seen = _seen(work.run)
        tries[seen] += 1
        died = _fit(work, training, desk, scratch)
        if died is None:
            return
        if tries[seen] == MAX_TRIES or not wait_for_gang(training, warn):
            raise TrainingError(f"{died}; the same command goes on from {_seen(work.run)} images")
        warn(f"{died}; it goes on from {_seen(work.run)} images")


def _fit(work: Work, training: Training, desk: Desk, scratch: str) -> str | None:
    """One run of Ray Train; says what the workers say. Returns how a worker died; None: they ended by themselves.

    Ray Train runs in a thread: in the main one it would turn Ctrl-C into exit code 0.

    Raises what a worker raised, or TrainingError.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    driver, ranks = Driver.here(), training.ranks

    def worker() -> None:
        from orchestrator.teacher.ranks import train

        die_with(driver)
        context = ray.train.get_context()
        train(work, context.get_world_rank(), context.get_world_size(), desk)

    trainer = TorchTrainer(
        worker,
        torch_config=TorchConfig(backend="nccl" if training.gpus_per_rank else "gloo"),
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=bool(training.gpus_per_rank)),
        run_config=RunConfig(name=secrets.token_hex(4), storage_path=scratch),  # what counts is in the run folder
    )
    ended: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
            ended.set_result(None)
        except BaseException as error:  # for the main thread
            ended.set_exception(error)

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    done = False
    while not done:
        done = bool(wait([ended], timeout=POLL_S).done)
        for line in desk.lines():
            say(line)
    try:
        ended.result()
    except TrainingFailedError as error:
        return _died(error, ranks)
    return None


def _died(error: Any, ranks: int) -> str:
    """How a worker died. Raises, if none died, what one of them raised: itself where its message is one line."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in failures.items():
        if isinstance(failure, WorkerHealthCheckFailedError):
            return one_line(f"rank {rank} of {ranks} died: {_first_line(failure.health_check_failure)}")
    for failure in failures.values():
        if _says_it_in_a_line(failure):
            raise failure from error
    for rank, failure in failures.items():
        line = f"rank {rank} of {ranks} failed: {type(failure).__name__}: {_first_line(failure)}"
        raise TrainingError(line) from error
    raise TrainingError(f"Ray Train: {_first_line(error)}") from error


def _says_it_in_a_line(failure: Exception) -> bool:
    from models.one_line import OneLineError
    from orchestrator.photographs.photos import PhotographError

    return isinstance(failure, (OneLineError, NotOwner, PhotographError, SpecError))


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _seen(run: Store) -> int:
    """Images whose work is saved."""
    record = read_record(run)
    return 0 if record is None else record.images_seen


def _say_finished(run: Store, recipe: Recipe) -> None:
    record, name = read_record(run), weights_file(recipe)
    assert record is not None
    say(f"{recipe.name}: {run.local_path(name) or f'{run.url}/{name}'}  sha256 {record.weights_sha256}")
