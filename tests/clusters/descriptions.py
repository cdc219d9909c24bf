"""Descriptions of clusters and jobs that the tests of launch files share."""

from __future__ import annotations

from pathlib import Path

from clusters.description import Cluster, load_cluster
from clusters.job import Job

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "clusters" / "specs"
KUSTOMIZED = ("cpu-test", "one-gpu-node", "many-nodes")
QUICKSTART = ROOT / "jobs" / "specs" / "quickstart.yaml"


def cluster(name: str, *overrides: str) -> Cluster:
    return load_cluster(SPECS / f"{name}.yaml", overrides)


def job(*overrides: str, name: str = "quickstart") -> Job:
    return Job(name=name, spec=QUICKSTART, overrides=overrides, root=ROOT)
