"""A folder's name is taken literally, whichever way it is given, by whoever needs the folder itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clusters.job import Job
from clusters.kubernetes.checks import check
from clusters.slurm.script import log
from orchestrator.spec.load import load_spec
from orchestrator.store.place import local_folder, unusable
from orchestrator.store.store import Store
from orchestrator.sweep.front.publish import check_registry
from orchestrator.sweep.run_folder.checkpoints import CheckpointError, fetched, write_checkpoint
from orchestrator.trials.record import Checkpoint
from tests.clusters.descriptions import cluster
from tests.odd_name import ODD

QUICKSTART = "jobs/specs/quickstart.yaml"


def _weights(folder: Path) -> None:
    (folder / "weights").write_bytes(b"1")


@pytest.fixture(params=["a path", "a URL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{tmp_path}/{ODD}" if request.param == "a path" else f"file://{tmp_path}/{ODD}"


def test_a_local_folder_of_an_odd_name_is_taken_literally(place: str, tmp_path: Path) -> None:
    assert local_folder(place) == Store(place).folder == tmp_path / ODD
    assert local_folder("s3://bucket/runs") is None and Store("s3://bucket/runs").folder is None
    assert local_folder("runs") == Path("runs") and local_folder("/") == local_folder("file:///") == Path("/")


def test_a_store_of_an_odd_name_is_taken_literally(place: str, tmp_path: Path) -> None:
    store = Store(place) / ODD
    assert store.publish(f"{ODD}/x", b"1") and store.list() == [f"{ODD}/x"]
    assert store.replace_if(f"{ODD}/x", b"2", store.read_stamped(f"{ODD}/x").tag)
    assert (tmp_path / ODD / ODD / ODD / "x").read_bytes() == b"2" == Store(store.url).read(f"{ODD}/x")
    assert store.local_path(f"{ODD}/x") == tmp_path / ODD / ODD / ODD / "x"


def test_a_run_folder_of_an_odd_name_is_taken_literally(place: str, tmp_path: Path) -> None:
    run = Store(place)
    check_registry(run)  # MLflow's own file can lie there
    files = write_checkpoint(_weights, run / "checkpoints")
    point = Checkpoint(path="checkpoints", files=files, images_seen=0)
    with fetched(run, point) as folder:
        assert (folder / "weights").read_bytes() == b"1"
    (tmp_path / ODD / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / ODD / "checkpoints").touch()
    with pytest.raises(CheckpointError, match=r"cannot be published \([\d,.]+ MB free\)"):
        write_checkpoint(_weights, run / "checkpoints")


def test_launchers_take_odd_names_literally(place: str, tmp_path: Path) -> None:
    job = Job(name="quickstart", spec=tmp_path / "spec.yaml", root=tmp_path)
    assert log(cluster("slurm", f"results={place}"), job) == tmp_path / ODD / "quickstart-%j.log"
    on = (f"results={place}", f"store={place}", f"kubernetes.claim.path={tmp_path}", "mlflow=http://mlflow:5000")
    check(cluster("cpu-test", *on), load_spec(QUICKSTART))


@pytest.mark.slow  # mounts
def test_a_disk_that_is_full_or_read_only_is_no_place(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here ({mounted.stderr.decode().strip()})")
    try:
        assert unusable(f"{disk}/runs") is None and [*disk.iterdir()] == []
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        refused = f"a folder that can be written, and {disk} cannot: "
        assert unusable(f"{disk}/runs") == f"{refused}No space left on device"
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert unusable(f"file://{disk}/runs") == f"{refused}Read-only file system"
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
