"""What a sweep leaves behind, without times: two sweeps are compared by it.

What its rungs measured and decided, what its search drew and would draw next, what its checkpoints held, the SHA-256 of
its weights, and its runs and versions in MLflow.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.results.files import needed
from orchestrator.results.front import FRONT, Front
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.search import Search
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord
from testing.watch import every

DECIDED = ("images_seen", "points", "bd_rate_pct", "log_lagrangian_ratio", "losses", "decision")
NEXT = 3  # trials that a search is asked for beyond the sweep's
LOOK_S = 0.05
Rungs = dict[str, list[dict[str, Any]]]


def rungs(run: Store) -> Rungs:
    """By trial: what each rung measured and decided. A rung without a decision is not reported yet."""
    by_trial: Rungs = {}
    for name in run.list("trials"):
        with suppress(FileNotFoundError):
            record = TrialRecord.from_json(run.read(name), name)
            decided = [rung for rung in record.rungs if rung.decision is not None]
            by_trial[record.trial_id] = [rung.model_dump(mode="json", include=set(DECIDED)) for rung in decided]
    return by_trial


def searched(run: Store, spec: Spec) -> list[dict[str, Any]]:
    """The trials that were drawn, and NEXT that a search restored from the run folder would draw after them."""
    search = Search(spec.model_copy(update={"trials": spec.trials + NEXT}))
    before = read_trials(run)
    search.resume(before)
    drawn = [record.trial for record in before]
    drawn += [trial for _ in range(NEXT) if (trial := search.ask()) is not None]
    return [trial.model_dump(mode="json") for trial in drawn]


def front(run: Store) -> list[dict[str, Any]]:
    """With the bytes, PSNR and SHA-256 of every bitstream; without the path of the weights, which names the process."""
    return [student.model_dump(mode="json", exclude={"weights"}) for student in needed(run, FRONT, Front).students]


def left(run: Store) -> dict[str, Any]:
    """What is left of checkpoints at the end, and the SHA-256 of each trial's weights."""
    weights = {record.trial_id: record.weights_digest for record in read_trials(run)}
    return {"checkpoints": run.list("checkpoints"), "weights": weights}


def registered(tracking_uri: str) -> dict[str, Any]:
    """MLflow's runs by trial (status, parameters, tags, every metric at every step), and the versions."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri, tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    versions = client.search_model_versions(max_results=1000)
    runs: dict[str, Any] = {}
    for run in client.search_runs(experiments):
        name = run.data.tags.get("trial_id", run.info.run_id)
        runs.setdefault(name, []).append(
            {
                "status": run.info.status,
                "params": run.data.params,
                "tags": {key: value for key, value in run.data.tags.items() if _compared(key)},
                "metrics": {
                    key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
                    for key in sorted(run.data.metrics)
                },
            }
        )
    return {"runs": runs, "versions": sorted((version.version, sorted(version.tags.items())) for version in versions)}


def _compared(tag: str) -> bool:
    """Not MLflow's own, not the token of the process that began the trial, and no digest of a file with times in it."""
    return not tag.startswith(("mlflow.", "sha256.")) and tag != "begun_by"


@contextmanager
def checkpoints(run: Store, kept: Path) -> Iterator[None]:
    """Keeps every checkpoint that a trial's file names while the context lasts, as kept/IMAGES-TRIAL, by hard links.

    One that is deleted between two looks is missed. Only for a run folder on this machine's disk.
    """
    folder = run.folder
    assert folder is not None, f"{run.url} is not on this machine's disk"
    kept.mkdir(parents=True, exist_ok=True)

    def look() -> None:
        with suppress(FileNotFoundError):
            for record in read_trials(run):
                if checkpoint := record.checkpoint:
                    name = f"{checkpoint.images_seen}-{record.trial_id}"
                    _keep(folder / checkpoint.path, checkpoint.files, kept / name)

    with every(LOOK_S, look):
        yield


def _keep(folder: Path, names: Iterable[str], target: Path) -> None:
    if target.exists():
        return
    partial = target.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in names:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / name, partial / name)
    partial.rename(target)


def contents(checkpoint: Path) -> dict[str, str]:
    """Name -> SHA-256 of what a checkpoint's files hold.

    Not of their bytes: pickles of equal values differ where one refers to an object twice and the other holds a copy.
    """
    import torch

    digests = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        if path.suffix == ".pt":  # our own, of a moment ago
            _feed(digest, torch.load(path, map_location="cpu", weights_only=False))
        else:
            digest.update(path.read_bytes())
        digests[path.relative_to(checkpoint).as_posix()] = digest.hexdigest()
    return digests


def _feed(digest: Any, value: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        digest.update(type(value).__qualname__.encode())
        _feed(digest, vars(value))
    else:
        digest.update(repr(value).encode())
