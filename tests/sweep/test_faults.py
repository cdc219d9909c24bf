"""Faults, each caused for real: a trial that meets one recovers or fails with a named reason, and the others go on.

The table that these belong to is in docs/faults.md; benchmarks/whole/faults.py causes each kill in whole sweeps.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray import tune

from orchestrator.distill.trial_data import SharedData, TrialData
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.features.format.key import plan_features
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import CropPlan
from orchestrator.registry.reach import RegistryError
from orchestrator.spec.load import load_spec
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Crops, Student, Training
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import ClusterError
from orchestrator.sweep.front.publish import register
from orchestrator.sweep.gang import gang, memory
from orchestrator.sweep.gang.notices import Notices
from orchestrator.sweep.gang.rank import Driver, Rank
from orchestrator.sweep.gang.sweep import Sweep, TrialConfig, resources
from orchestrator.sweep.gang.trial import SweepTrial
from orchestrator.sweep.preemption import Preempted, SigtermHandler
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.checkpoints import CheckpointError, fetched, write_checkpoint
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import Checkpoint, TrialRecord
from testing.ray_nodes import await_until
from testing.tree import titled
from tests.sweep.conftest import ROOT, printed, start_sweep

pytestmark = pytest.mark.slow  # gangs and whole sweeps

RUNGS = (32, 64, 96)
CURVE = tuple((0.1 * bpp, 24.0 + 2 * bpp) for bpp in range(1, 11))
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)


class Run:
    """What a rank trains, without torch: a number that depends on every step. It meets its trial's fault once, at 48
    images, unless the trial's name says `always`."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.mark, self.images, self.value = name, Path(folder) / name, 0, 1.0

    def reading(self) -> tuple[float, int]:
        return 0.0, 0

    def advance_to(self, images: int) -> None:
        while self.images < images:
            self.images, self.value = self.images + 8, self.value * 1.01 + 0.1
            if self.images == 48 and not (self.mark.exists() and "always" not in self.name):
                self.mark.touch()
                self.fault()

    def fault(self) -> None:
        if "killed" in self.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hangs" in self.name:
            time.sleep(600)
        if "raises" in self.name:
            raise ValueError("a wrong setting")
        if "memory" in self.name:
            resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
            bytearray(2**40)
        if "disk" in self.name:  # what a rank may write to a file from here on
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))

    def take_terms(self) -> dict[str, float]:
        return {"loss": self.value}

    def validate(self) -> list[CurvePoint]:
        rows = zip(CURVE[2:7], LAMBDAS, strict=True)
        return [
            CurvePoint(rate_point=i, lmbda=lmbda, bpp=bpp, mse=10 ** (-psnr / 10), psnr_db=psnr + self.value / 100)
            for i, ((bpp, psnr), lmbda) in enumerate(rows)
        ]

    def export(self, path: Path) -> None:
        path.write_bytes(b"weights")

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps([self.images, self.value]))
        (folder / "moments").write_bytes(bytes(2**18))

    def load(self, folder: Path) -> None:
        self.images, self.value = json.loads((folder / "state.json").read_text())

    def close(self) -> None:
        pass


class Light(Rank):
    def prepare(self, threads: int) -> None:
        pass

    def open_rendezvous(self, host: str) -> int:
        return 0

    def join(self, host: str, port: int) -> int:
        return os.getpid()

    def trial_run(self, spec: Spec, trial: Trial, data: TrialData) -> Any:
        return Run(trial.trial_id, data.store_url)


class Impatient(SweepTrial):
    def setup(self, config: TrialConfig, sweep: Sweep) -> None:
        gang.TIMEOUT_MARGIN_S = 5.0
        super().setup(config, sweep)


@pytest.fixture
def by_value() -> Any:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def data_in(folder: Path) -> SharedData:
    """No crops: `Run` reads none."""
    plan = CropPlan(
        count=0, rate_points=len(LAMBDAS), seed=0, settings=Crops(), photographs=PhotographTable.of(()).sizes
    )
    pixels = plan_features(plan)
    return SharedData(
        store_url=str(folder), plan=plan, pixels_plan=pixels, feature_plans={}, channel_bits={}, validation=()
    )


def sweep_of(names: list[str], tiny_spec: Path, folder: Path) -> Sweep:
    rungs = f"early_stopping.rungs={list(RUNGS)}"
    spec: Spec = load_spec(tiny_spec, ["training.ranks_per_trial=1", rungs])
    trials = [Trial(trial_id=name, student=spec.students[0], teacher=None, loss=Loss(), seed=0) for name in names]
    run = Store(folder / "run")
    records.take_over(run, "token")
    size = Complexity(params=1, macs_per_pixel=1.0, encoder_macs_per_pixel=0.5, decoder_macs_per_pixel=0.5)
    sizes = {trial.complexity_class: size for trial in trials}
    for trial in trials:
        records.begin(run, trial, sizes[trial.complexity_class], "token")
    return Sweep(
        spec=spec,
        run=run,
        anchor=Anchor(
            teacher="t",
            weights="w",
            rate_points=tuple(range(10)),
            curve=CURVE,
            lambdas=LAMBDAS,
            at_lambdas=tuple((bpp, 10 ** (-psnr / 10)) for bpp, psnr in CURVE[2:7]),
        ),
        complexity=sizes,
        data=data_in(folder),
        sources=ray.put(None),
        driver=Driver.here(),
        token="token",
        notices=Notices.start(),
        rank_class=Light,
    )


def run_trials(names: list[str], tiny_spec: Path, folder: Path) -> dict[str, TrialRecord]:
    """Trains all trials on one gang to the last rung; their records."""
    sweep = sweep_of(names, tiny_spec, folder)
    progress = Progress(sweep, 0, 10, lambda record: None)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(Impatient, sweep=sweep), resources(sweep.spec)),
        param_space={"trial_id": tune.grid_search(names)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[progress],
            stop={"images_seen": RUNGS[-1]},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    ).fit()
    return {record.trial_id: record for record in read_trials(sweep.run) if record.trial_id in names}


def test_a_fault_ends_its_own_trial_and_no_other(
    local_ray: None, by_value: Any, tiny_spec: Path, tmp_path: Path
) -> None:
    right = ["undisturbed", "killed", "hangs", "last"]
    wrong = {
        "raises": "ValueError: a wrong setting",
        "memory": "training.micro_batch_size: 8 crops a rank at once do not fit into memory; at most 4",
        "disk": "cannot be written",
        "killed-always": "died: ",
    }
    trial_records = run_trials([*right[:3], *wrong, right[3]], tiny_spec, tmp_path)
    rows = {name: measured(record) for name, record in trial_records.items()}
    for name in right:
        assert (
            trial_records[name].status == "running" and trial_records[name].error is None
        )  # nobody decided: no scheduler
        assert rows[name] == rows["undisturbed"] and len(rows[name]) == len(RUNGS)
    run = Store(tmp_path / "run")
    for name, line in wrong.items():
        record = trial_records[name]
        assert record.status == ("lost" if name == "killed-always" else "failed")
        assert line in (record.error or "").splitlines()[-1]
        assert rows[name] == rows["undisturbed"][:1]  # what was reported is not lost
        assert record.checkpoint is not None and record.checkpoint.images_seen == RUNGS[0]
        with fetched(run, record.checkpoint) as folder:
            assert json.loads((folder / "state.json").read_text())[0] == RUNGS[0]
    again = run_trials(["raises", "disk"], tiny_spec, tmp_path)  # their faults are over
    for name, record in again.items():
        assert record.status == "running" and record.error is None and measured(record) == rows["undisturbed"]
        assert record.rungs[0].ended_at == trial_records[name].rungs[0].ended_at


def measured(record: TrialRecord) -> list[Any]:
    """What a trial's rungs measured."""
    return [(rung.images_seen, rung.points, rung.bd_rate_pct, rung.losses) for rung in record.rungs]


def test_training_goes_in_slices_and_stops_between_two(local_ray: None, by_value: Any, tmp_path: Path) -> None:
    ranks = gang.Gang(size=1, threads=1, driver=Driver.here(), rank_class=Light)
    trial = type("Named", (), {"trial_id": "undisturbed"})()
    control = Trial(trial_id="", student=Student(family="hyperprior", N=8, M=16), teacher=None, loss=Loss(), seed=0)
    ranks.call("build", None, trial, data_in(tmp_path).of(control), Store(tmp_path), None)
    looks = iter([False, False, True])
    seen = ranks.train(0, 10**9, 8, lambda: next(looks))
    assert 16 <= seen < 10**9 and seen % 8 == 0
    files = ranks.call("save", Store(tmp_path), "middle")[0]
    with fetched(Store(tmp_path), Checkpoint(images_seen=seen, path="middle", files=files)) as folder:
        assert json.loads((folder / "state.json").read_text())[0] == seen
    ranks.kill()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    run = Store(tmp_path / "run")

    def save(folder: Path) -> None:
        (folder / "state").write_bytes(bytes(100))

    files = write_checkpoint(save, run / "point")
    point = Checkpoint(images_seen=8, path="point", files=files)
    with fetched(run, point) as folder:
        assert (folder / "state").read_bytes() == bytes(100)
    path = tmp_path / "run" / "point" / "state"
    path.unlink() if damage == "gone" else path.write_bytes(bytes(99) + (b"\1" if damage == "flipped" else b""))
    with pytest.raises(CheckpointError, match=r"run/point/state is (gone|damaged).*the trial begins anew"):
        with fetched(run, point):
            pass


def test_memory_is_told_from_other_failures(tmp_path: Path) -> None:
    assert memory.raised(MemoryError()) and not memory.raised(ValueError("out of memory"))
    assert memory.raised(RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"))
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free 1\noom_kill 3\n")
    assert memory.kernel_kills(vmstat) == 3 and memory.kernel_kills(tmp_path / "none") == 0
    assert "at most 2" in memory.advice(Training(batch_size=8, ranks_per_trial=2))
    one = memory.advice(Training(batch_size=8, micro_batch_size=1))
    assert "training.precision bf16" in one and "zero_stage 3" in one


def test_mlflow_that_is_away_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    with pytest.raises(
        RegistryError, match=r"^MLflow at http://\*\*\*@127.0.0.1:1: .*the same command registers them$"
    ) as e:
        register(Store(tmp_path), "0" * 64, [], [], print)
    assert "secret" not in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("wait", [ray.get, lambda task, timeout: ray.wait([task], timeout=timeout)])
def test_sigterm_ends_a_wait_for_a_task_of_ray(local_ray: None, wait: Callable[..., Any]) -> None:
    def sleep() -> None:
        time.sleep(600)

    task = ray.remote(num_cpus=0)(sleep).remote()
    signalled = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    began = time.monotonic()
    with pytest.raises(Preempted, match="nothing was being trained"), SigtermHandler(300.0).installed():
        signalled.start()
        wait(task, timeout=200)
    assert time.monotonic() - began < 60  # before the wait's own end, and the handler's, which would end this process
    ray.cancel(task, force=True)


def test_sigterm_while_ray_starts_is_a_preemption() -> None:
    """ray.init has a handler of its own meanwhile, which ends the process with exit code 15."""
    with pytest.raises(Preempted, match="nothing was being trained"), SigtermHandler(30.0).installed():
        sys.exit(signal.SIGTERM)
    with pytest.raises(SystemExit, match=r"^2$"), SigtermHandler(30.0).installed():
        sys.exit(2)


@pytest.mark.parametrize("signalled", [Preempted("nothing was being trained"), KeyboardInterrupt()])
def test_a_signal_is_not_taken_for_an_error_of_ray(signalled: BaseException) -> None:
    """Compiled code wraps what a handler raises in it, and who calls Ray takes that for Ray's own error."""

    def compiled() -> None:
        try:
            raise signalled
        except BaseException as error:
            raise SystemError(
                "<method 'get' of 'ray._raylet.CoreWorker'> returned a result with an exception"
            ) from error

    with pytest.raises(type(signalled)) as caught, SigtermHandler(30.0).installed():
        try:
            compiled()
        except Exception as error:
            raise ClusterError(f"Ray cannot be started on this machine: {error}") from error
    assert caught.value is signalled
    with pytest.raises(ClusterError), SigtermHandler(30.0).installed():
        raise ClusterError("Ray cannot be started on this machine: no memory") from OSError("no memory")


def test_an_error_after_the_signal_is_a_preemption(tmp_path: Path) -> None:
    """Such as of a store or a cluster that goes down with this process, while trials save."""

    class Deaf:
        def leave(self) -> None:
            pass

    handler = SigtermHandler(30.0)
    with pytest.raises(Preempted, match=r"^not all was saved \(s3://b: it does not answer\)$"), handler.installed():
        with handler.saving_trials(Store(tmp_path), Deaf()):
            os.kill(os.getpid(), signal.SIGTERM)
            raise StoreError("s3://b: it does not answer")


def test_ranks_end_with_a_killed_driver(tmp_path: Path) -> None:
    program = """
import sys, time
from orchestrator.sweep.cluster import connected
from orchestrator.sweep.gang.gang import Gang
from orchestrator.sweep.gang.rank import Driver
from tests.sweep.test_faults import Light
with connected(num_cpus=2):
    ranks = Gang(size=2, threads=1, driver=Driver.here(), rank_class=Light)
    print("pids", *ranks.pids, flush=True)
    time.sleep(600)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    pids = [int(pid) for pid in driver.stdout.readline().split()[1:]]
    assert len(pids) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(timeout=30)  # for its process alone: its Ray, which has the other end of the pipe, lives on for a while
    driver.stdout.close()
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def a_control(tiny_spec: Path, folder: Path, *, last: int) -> tuple[Path, Path]:
    """A specification of one control with rungs at 8 and `last` images, and where its trial's file will be."""
    data = yaml.safe_load(tiny_spec.read_text())
    data |= {"trials": 1, "early_stopping": {"rungs": [8, last], "reduction": 2}, "preemption": {"grace_s": 120}}
    data |= {"teachers": data["teachers"][:1]}  # of a control the anchor's alone counts
    data["training"]["ranks_per_trial"] = 1
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(data))
    return spec, folder / "runs" / "tiny" / "trials" / "01-hyperprior-n64-control.json"


def decided(file: Path) -> bool:
    return file.is_file() and "decision" in file.read_text()


def until(reached: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits for what the sweep in this folder is to reach."""
    await_until(reached, process, folder / "output.txt", 500)


def test_sigterm_saves_a_trial_in_mid_segment_and_the_same_command_goes_on(tiny_spec: Path, tmp_path: Path) -> None:
    spec, file = a_control(tiny_spec, tmp_path, last=4000)
    process = start_sweep(spec, tmp_path)
    until(lambda: decided(file), process, tmp_path)
    first = left(process, file)
    assert first["checkpoint"]["images_seen"] > 8

    process = start_sweep(spec, tmp_path)
    until(lambda: training(process), process, tmp_path)
    second = left(process, file)
    assert second["checkpoint"]["images_seen"] > first["checkpoint"]["images_seen"]
    assert second["rungs"] == first["rungs"]


@pytest.mark.long
def test_a_trial_whose_own_process_is_killed_is_tried_again_by_the_same_start(tiny_spec: Path, tmp_path: Path) -> None:
    spec, file = a_control(tiny_spec, tmp_path, last=800)
    process = start_sweep(spec, tmp_path)
    until(lambda: decided(file) and training(process), process, tmp_path)
    first = json.loads(file.read_text())["rungs"][0]
    (trainable,) = titled(process.pid, ("ray::ResourceTrainable",))
    trainable.kill()
    assert process.wait(timeout=500) == 0, printed(tmp_path)
    assert "failed: " in printed(tmp_path) and "1 trials that lost their processes are tried again" in printed(tmp_path)
    record = json.loads(file.read_text())
    assert record["status"] == "finished" and record["error"] is None
    assert record["rungs"][0] == first and [rung["images_seen"] for rung in record["rungs"]] == [8, 800]


@pytest.mark.long
def test_a_sweep_that_is_taken_over_ends_with_one_line(tiny_spec: Path, tmp_path: Path) -> None:
    spec, file = a_control(tiny_spec, tmp_path, last=800)
    process = start_sweep(spec, tmp_path)
    until(lambda: decided(file) and training(process), process, tmp_path)
    run = Store(file.parents[1])
    records.take_over(run, "another")
    (claimed,) = records.claim(run, [file.stem], "another")
    assert process.wait(timeout=500) == 1  # at its next rung
    # ahead of it Ray prints the traceback of the trial that was refused
    assert printed(tmp_path).splitlines()[-1].endswith("was taken over by another process"), printed(tmp_path)
    assert read_trials(run) == [claimed]


def training(sweep: subprocess.Popen[bytes]) -> bool:
    """Whether a rank of the sweep trains: Ray shows in a process's title what it does."""
    return bool(titled(sweep.pid, ("ray::Rank.train",)))


def left(process: subprocess.Popen[bytes], file: Path) -> dict[str, Any]:
    """The trial's record after SIGTERM: one rung, and a whole checkpoint in the middle of the second segment."""
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=150)
    output = printed(file.parents[3])
    assert process.returncode == 75 and "1 running trials are saved; the same command goes on" in output, output
    record = TrialRecord.from_json(file.read_bytes(), file.name)
    assert record.status == "saved" and record.checkpoint is not None
    assert record.images_seen == record.checkpoint.images_seen < 4000 and len(record.rungs) == 1
    with fetched(Store(file.parents[1]), record.checkpoint) as folder:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [path for path in (file.parents[1] / "checkpoints").rglob("*") if path.is_file()]
    assert "format.txt" in files and len(kept) == len(files)  # and no other
    return record.model_dump()
