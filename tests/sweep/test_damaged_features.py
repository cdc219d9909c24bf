"""Objects of the feature store that are damaged between fill and training: the sweep ends as if they had not been."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalogue import SHIPPED
from orchestrator.crops import batch_at
from orchestrator.features.key import FeaturePlan
from orchestrator.spec import load_spec
from orchestrator.store import Store
from orchestrator.sweep.plan import Plan
from tests.servers import SeaweedFS
from tests.sweep.conftest import ROOT, sweep_command

BATCH, RUNGS = 8, (16, 40)  # the second rung's steps read rate points, and so shards, that the first one's do not


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A control and a distilled trial, one rank each."""
    teacher = str(SHIPPED / "teacher-hyperprior.safetensors")
    data = {
        "name": "damaged",
        "trials": 2,
        "photographs": {name: str(ROOT / "data" / "quickstart" / name) for name in ("train", "validation")},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": "hyperprior", "weights": teacher}],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teacher}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "training": {"batch_size": BATCH, "ranks_per_trial": 1},
        "early_stopping": {"rungs": [*RUNGS], "reduction": 2},
        "candidates": 1,
    }
    path = tmp_path / "damaged.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


class Run:
    """A sweep in a process of its own, with a store and a node cache that no other has."""

    def __init__(self, spec: Path, folder: Path, bucket: str) -> None:
        self.folder, self.store = folder, Store(f"s3://{bucket}/{uuid.uuid4().hex}")
        folder.mkdir()
        places = ("--set", f"store={self.store.url}", "--set", f"node_cache.folder={folder / 'node'}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self._command = [*sweep_command(spec, folder), *places]
        self._environment = environment | {"MLFLOW_DISABLE_TELEMETRY": "true"}

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self._command,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def load(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / "damaged" / name).read_text())

    def rungs(self) -> dict[str, Any]:
        """By trial: what a rung measured and decided, without times and without what was mended."""
        kept = ("images_seen", "points", "bd_rate_pct", "losses", "decision")
        names = sorted(path.name for path in (self.folder / "runs" / "damaged" / "trials").glob("*.json"))
        return {name: [{key: rung[key] for key in kept} for rung in self.trial(name)["rungs"]] for name in names}

    def trial(self, name: str) -> Any:
        return self.load(f"trials/{name}")


def damage(store: Store, name: str, how: str) -> None:
    data = store.read(name)
    flipped = bytes([*data[:-9], data[-9] ^ 1, *data[-8:]])
    store.replace(name, {"flipped": flipped, "truncated": data[:-1]}[how])


def test_a_sweep_over_damaged_objects_ends_as_an_undisturbed_one(
    spec: Path,
    tmp_path: Path,
    s3_server: SeaweedFS,
    s3_environment: dict[str, str],
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Plan.of(load_spec(spec).resolved(tmp_path))
    pixels, teacher = plan.feature_plans
    undisturbed, disturbed = (Run(spec, tmp_path / name, s3_server.bucket) for name in ("undisturbed", "disturbed"))

    def shard_of(step: int) -> int:
        crop = batch_at(plan.crops, step, BATCH, plan.spec.seed)[1][0]
        return next(shard for shard, crops in enumerate(plan.crops.shards) if crop in crops)

    def path_of(features: FeaturePlan, tap: str, step: int) -> str:
        return features.object(tap, shard_of(step))

    seen_late, seen_early = path_of(pixels, "x", 3), path_of(teacher, "y", 0)  # by the control, by the distilled one
    seen_by_the_fill = path_of(teacher, "x_hat", 4)
    with undisturbed.started() as first:
        deadline = time.monotonic() + 200
        while len(undisturbed.store.list("ledgers")) < 2:
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
            time.sleep(0.2)
        for folder in ("features", "shards", "ledgers"):
            for name in undisturbed.store.list(folder):
                disturbed.store.publish(name, undisturbed.store.read(name))
        damage(disturbed.store, seen_late, "flipped")
        damage(disturbed.store, seen_early, "flipped")
        damage(disturbed.store, seen_by_the_fill, "truncated")
        with disturbed.started() as second:
            outputs = [process.communicate(timeout=400)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert disturbed.rungs() == undisturbed.rungs()
    control, distilled = disturbed.rungs()
    for run, expected in ((undisturbed, {}), (disturbed, {(control, 1): seen_late, (distilled, 0): seen_early})):
        for trial in run.rungs():
            for place, rung in enumerate(run.trial(trial)["rungs"]):
                found, name = rung["mended"], expected.get((trial, place))
                assert len(found) == (name is not None) and all(f"{run.store.url}/{name}: " in line for line in found)
    fronts = [
        [{key: value for key, value in entry.items() if not key.endswith("_s")} for entry in run.load("front.json")]
        for run in (undisturbed, disturbed)
    ]
    assert fronts[0] == fronts[1]
    said = [line for line in outputs[1].splitlines() if line.endswith("made anew")]
    assert len(said) == 3 and f"features: {disturbed.store.url}/{seen_by_the_fill}: tap x_hat: " in said[0]
    for name in undisturbed.store.list("features"):
        assert disturbed.store.read(name) == undisturbed.store.read(name)
    record_property("mended", said)
    with capsys.disabled():
        print(
            "\nfault: 3 objects damaged between fill and training; outcome: equal rungs and front; said:",
            *said,
            sep="\n  ",
        )
