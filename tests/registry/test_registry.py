"""A run folder in MLflow: closed runs, versions that are added once and work without the repository; no torch here."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.registry.registered import Registered
from orchestrator.registry.registry import Registry
from orchestrator.results.bundles import bundle_file
from orchestrator.results.front import CodedStudent
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Student
from orchestrator.store.store import Store
from orchestrator.trials.record import Status, TrialRecord
from orchestrator.trials.weights import LostWeights
from testing.records import record, rung
from tests.odd_name import ODD
from tests.registry.conftest import LAMBDAS, Exported
from tests.registry.somebody import bundle_of
from tests.results.builders import coded_student

SWEEP = "5" * 64


def trial(trial_id: str, status: Status, rungs: int) -> TrialRecord:
    reached = [
        rung(
            512 * (i + 1),
            None if i == 0 else -1.5 * i,
            points=(CurvePoint(rate_point=0, lmbda=0.0018, bpp=0.2 - 0.01 * i, psnr_db=30.0 + i, mse=1e-3),),
            log_lagrangian_ratio=0.5 - 0.1 * i,
        )
        for i in range(rungs)
    ]
    return record(
        trial_id,
        reached,
        student=Student(family="hyperprior", N=8, M=12),
        loss=Loss(rate_distortion=1.0, latent=0.0),
        seed=3,
        status=status,
        error="rank 1 died" if status in ("failed", "lost") else None,
        params=1000,
        macs_per_pixel=250.5,
        encoder_macs_per_pixel=150.5,
        decoder_macs_per_pixel=100.0,
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A folder with three students' weights and the photograph that their figures are on."""
    import torch

    from models.ladder import RateLadder
    from models.weights import save_ladder

    folder = tmp_path_factory.mktemp("runs") / ODD / "quick test"
    for seed, name in enumerate(("a", "b", "c")):
        torch.manual_seed(seed)
        save_ladder(folder / f"weights/{name}.safetensors", RateLadder(family="hyperprior", N=8, M=12, lambdas=LAMBDAS))
    rgb = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / "photograph.png")
    return folder


def entry(folder: Path, name: str) -> CodedStudent:
    from models.bitstream import prepare_for_coding
    from models.weights import digest, load_ladder
    from orchestrator.evaluation.rate_distortion import coded

    path = folder / f"weights/{name}.safetensors"
    rgb = np.asarray(Image.open(folder / "photograph.png"))
    measured = coded(prepare_for_coding(load_ladder(path)), [("photograph.png", rgb)], [0, 2])
    student = coded_student(
        trial_id=f"01-{name}",
        bd_rate_pct=-3.25,
        validation=tuple(measured),
        weights=f"weights/{name}.safetensors",
        weights_digest=digest(path),
    )
    return with_bundle(folder, student)


def other(student: CodedStudent, **fields: str) -> CodedStudent:
    return student.model_copy(update=fields)


def with_bundle(folder: Path, student: CodedStudent) -> CodedStudent:
    """With a bundle in the run folder that cannot code, if there is none."""
    run, name = Store(folder), bundle_file(student.trial_id, student.weights_digest)
    if not run.exists(name):
        with tempfile.TemporaryDirectory() as made:
            run.replace(name, bundle_of(Path(made, "bundle"), b"entropy"))
    return student


@pytest.fixture(scope="module")
def registry(run_folder) -> Registry:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Registry(Store(run_folder), SWEEP)


def register(registry: Registry, students: list[CodedStudent]) -> list[Registered]:
    runs = registry.log_trials([trial(student.trial_id, "finished", 2) for student in students])
    return registry.register_front(students, runs)


def test_database_and_artifacts_lie_in_the_run_folder_whatever_its_parents_names(registry, run_folder):
    student = entry(run_folder, "c")
    (version,) = register(registry, [student])
    assert (run_folder / "mlflow.db").is_file()
    assert [*(run_folder / "mlartifacts").rglob("weights.safetensors")]
    # MLflow makes folders of a URL's quoted path
    assert [path.name for path in run_folder.parents[1].iterdir()] == [ODD]
    alias = f"01-c-{student.weights_digest[:12]}"
    assert (version.uri, version.version) == (f"models:/lic-distillery-quick test-{SWEEP[:12]}@{alias}", "1")


def test_trials_are_closed_runs_with_metrics_over_images(registry):
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri)
    trials = [
        trial("01-a", "finished", 2),
        trial("02", "stopped", 1),
        trial("03", "failed", 1),
        trial("04", "running", 1),
        trial("05", "lost", 1),
        trial("06", "saved", 1),
    ]
    runs = registry.log_trials(trials)
    where = registry.where(runs)
    assert (where.runs, where.model, where.tracking_uri) == (runs, registry.model, registry.tracking_uri)
    logged = {name: client.get_run(run_id) for name, run_id in runs.items()}
    assert {name: run.info.status for name, run in logged.items()} == {
        "01-a": "FINISHED",
        "02": "FINISHED",
        "03": "FAILED",
        "04": "KILLED",
        "05": "FAILED",
        "06": "KILLED",
    }
    assert {name: run.data.tags["stopped"] for name, run in logged.items()} == {
        "01-a": "false",
        "02": "true",
        "03": "false",
        "04": "false",
        "05": "false",
        "06": "false",
    }
    assert logged["03"].data.tags["error"] == "rank 1 died"
    assert logged["01-a"].data.params["student_N"] == "8"
    steps = [(m.step, m.value) for m in client.get_metric_history(runs["01-a"], "estimated_psnr_db_rate_0")]
    assert steps == [(512, 30.0), (1024, 31.0)]
    assert [(m.step, m.value) for m in client.get_metric_history(runs["01-a"], "estimated_bd_rate_pct")] == [
        (1024, -1.5)
    ]


def test_a_trial_that_failed_and_was_tried_again_has_no_error(registry):
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri)
    run_id = registry.log_trials([trial("11", "failed", 1)])["11"]
    registry.log_trials([trial("11", "finished", 2)])
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and "error" not in run.data.tags


def test_trials_logged_again_get_only_what_they_lack(registry):
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri)
    first = registry.log_trials([trial("10", "running", 1)])
    second = registry.log_trials([trial("10", "finished", 3)])
    assert registry.log_trials([trial("10", "finished", 3)]) == second == first
    steps = [m.step for m in client.get_metric_history(first["10"], "estimated_log_lagrangian_ratio")]
    assert steps == [512, 1024, 1536]
    assert client.get_run(first["10"]).info.status == "FINISHED"


def test_versions_are_added_once(registry, run_folder):
    entries = [entry(run_folder, "a"), entry(run_folder, "b")]
    first = register(registry, entries)
    assert [(version.trial_id, version.new) for version in first] == [("01-a", True), ("01-b", True)]
    again = register(Registry(Store(run_folder), SWEEP, registry.tracking_uri), entries)
    assert [(version.version, version.new) for version in again] == [(version.version, False) for version in first]


@pytest.mark.parametrize("lost", ["is gone", "is damaged: not the recorded SHA-256"])
def test_lost_weights_are_named_before_anything_is_registered(registry, run_folder, lost):
    path = run_folder / "weights/lost.safetensors"
    path.unlink(missing_ok=True) if lost == "is gone" else path.write_bytes(b"other")
    students = [
        with_bundle(run_folder, other(entry(run_folder, "a"), trial_id="98")),
        coded_student(trial_id="99", weights="weights/lost.safetensors"),
    ]
    with pytest.raises(LostWeights, match=rf"lost\.safetensors {lost}; without trials/99\.json the same command"):
        register(registry, students)
    assert not [version for version in registry._client.search_model_versions("") if version.tags["trial_id"] == "98"]


def test_tracking_uri_of_the_environment(run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    Registry(Store(run_folder), SWEEP).log_trials([])
    assert (tmp_path / "elsewhere.db").exists()


LOADER = """
import io, json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, mlflow
from PIL import Image

def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(float)

model = mlflow.pyfunc.load_model(sys.argv[1])
codec = model.unwrap_python_model()
photograph, stream, decoded = (open(path, "rb").read() for path in sys.argv[2:])
for row in codec.figures["validation"]:
    (coded,) = model.predict({"data": [photograph]}, params={"rate": row["rate_point"]})["data"]
    assert abs(len(coded) - row["bytes"]) <= 4, (len(coded), row)
    mse = np.mean((pixels(photograph) - pixels(model.predict({"data": [coded]})["data"][0])) ** 2)
    assert abs(10 * np.log10(255**2 / mse) - row["psnr_db"]) < 1e-2
(png,) = model.predict({"data": [stream]})["data"]
assert np.abs(pixels(png) - pixels(decoded)).max() <= 1
both = model.predict({"data": [stream, photograph]}, params={"rate": 0.5})["data"]
assert both[0] == png and pixels(model.predict({"data": [both[1]]})["data"][0]).shape == pixels(photograph).shape
try:
    model.predict({"data": [photograph, b"neither"]})
except Exception as error:
    said = str(error)
new = np.random.default_rng(1).integers(0, 256, (333, 511, 3), dtype=np.uint8)
assert codec.decode(codec.encode(new, 1.5)).shape == new.shape and codec.encode(new) == codec.encode(new, 1)
ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "lic_codec"]
heavy = sorted({"torch", "compressai", "models", "orchestrator", "safetensors"} & {*sys.modules})
print(json.dumps({"rows": len(codec.figures["validation"]), "code": ours, "heavy": heavy, "said": said}))
"""


@pytest.mark.slow
def test_a_version_works_in_a_new_process_without_the_repository_and_without_torch(
    registry, run_folder, exported: Exported, tmp_path
):
    from models.bitstream import decode_image, encode_image, prepare_for_coding
    from models.weights import ladder_from

    (run_folder / "weights/large.safetensors").write_bytes(exported.weights)
    student = entry(run_folder, "large")
    Store(run_folder).replace(bundle_file(student.trial_id, student.weights_digest), exported.bundle)
    (version,) = register(registry, [student])
    coding, rgb = (
        prepare_for_coding(ladder_from(exported.weights)),
        np.asarray(Image.open(run_folder / "photograph.png")),
    )
    stream = encode_image(coding, rgb, 1)
    (tmp_path / "made-under-torch.lic").write_bytes(stream)
    Image.fromarray(decode_image(coding, stream)).save(tmp_path / "decoded-under-torch.png")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MLFLOW_TRACKING_URI": registry.tracking_uri
    }
    files = [run_folder / "photograph.png", tmp_path / "made-under-torch.lic", tmp_path / "decoded-under-torch.png"]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, version.uri, *map(str, files)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["rows"] == 2 and answer["heavy"] == []
    assert len(answer["code"]) > 5
    assert not [path for path in answer["code"] if path.startswith(str(Path(__file__).parents[2]))]
    assert answer["said"].startswith("row 1: the picture: not a picture") and "\n" not in answer["said"]


@pytest.mark.slow
def test_the_driver_imports_no_torch(run_folder, registry):
    register(registry, [entry(run_folder, "a")])
    (known,) = register(registry, [entry(run_folder, "a")])
    new = with_bundle(run_folder, other(entry(run_folder, "b"), trial_id="20"))
    runs = registry.log_trials([trial("20", "finished", 1)])
    script = (
        "import json, sys; from orchestrator.registry.registry import Registry;"
        "from orchestrator.store.store import Store;"
        "r = Registry(Store(sys.argv[1]), sys.argv[2], sys.argv[3]);"
        "from orchestrator.results.front import CodedStudent; e = CodedStudent.model_validate_json(sys.stdin.read());"
        "r.log_trials([]); print(r.register_front([e], json.loads(sys.argv[4]))[0].new);"
        "assert not {'torch', 'compressai', 'deepspeed'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run_folder), SWEEP, registry.tracking_uri, json.dumps(runs)],
        input=new.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]
    assert known.new is False
