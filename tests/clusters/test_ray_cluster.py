"""The files that start a Ray cluster; jobs for a real head are in tests/jobs/test_submit.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from clusters import ray_cluster
from clusters.description import Cluster, load_cluster
from clusters.job import Job
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "specs" / "quickstart.yaml"
THREE = ("nodes=3", "ray.head=10.0.0.1", "ray.workers=[10.0.0.2, 10.0.0.3]", "gpus_per_node=4")


def cluster(*overrides: str) -> Cluster:
    return load_cluster(ROOT / "clusters" / "specs" / "ray.yaml", overrides)


def rendered(*overrides: str, root: Path = ROOT) -> dict[str, str]:
    spec = root / QUICKSTART.relative_to(ROOT)
    return ray_cluster.files(cluster(*overrides), Job(name="quickstart", spec=spec, root=root))


@pytest.mark.parametrize("overrides", [(), ("nodes=2",), THREE], ids=["one", "unnamed", "named"])
def test_the_recipe_is_a_sound_script(overrides: tuple[str, ...]) -> None:
    recipe = rendered(*overrides, root=Path("/srv/it's a b"))["ray-start.sh"]
    subprocess.run(["bash", "-n"], input=recipe, text=True, check=True)
    starts = [line for line in recipe.splitlines() if line.startswith("ray start")]
    assert len(starts) == cluster(*overrides).nodes and sum("--head" in line for line in starts) == 1
    assert "export RAY_AUTH_MODE=token" in recipe and "dashboard-host=127.0.0.1" in starts[0]


def test_a_specification_in_the_repository_travels_with_it(tmp_path: Path) -> None:
    assert "--spec jobs/specs/quickstart.yaml" in rendered()["ray-start.sh"]
    other = Job(name="quickstart", spec=tmp_path / "mine.yaml", root=ROOT)
    assert f"--spec {tmp_path}/mine.yaml" in ray_cluster.files(cluster(), other)["ray-start.sh"]


def test_ray_takes_the_cluster_file(tmp_path: Path) -> None:
    data = yaml.safe_load(rendered(*THREE)["ray-up.yaml"])
    validate_config(prepare_config(data))
    assert data["provider"] == {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    assert data["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    with pytest.raises(Exception, match="providr"):
        validate_config(prepare_config({**data, "providr": data["provider"]}))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("results=runs", "results: 'runs' is not allowed: s3://bucket/prefix or an absolute path"),
        ("ray.head=a", "ray.workers: \\[\\] is not allowed: 1 hosts beside ray.head, since nodes is 2"),
        ("ray.workers=[a]", "ray.head: nothing is not allowed: the head's host"),
    ],
)
def test_what_no_ray_cluster_can_do_is_refused(override: str, line: str) -> None:
    with pytest.raises(SpecError, match=line):
        ray_cluster.check(cluster("nodes=2", override), load_spec(QUICKSTART))
