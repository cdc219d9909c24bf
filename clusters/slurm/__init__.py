"""Slurm as a launcher: a batch script (script.py, body.sh), sent and followed (submit.py)."""

from __future__ import annotations

from clusters.description import Cluster
from clusters.job import Job
from clusters.slurm.limits import check
from clusters.slurm.script import script
from clusters.slurm.submit import launch

__all__ = ["check", "files", "launch"]


def files(cluster: Cluster, job: Job) -> dict[str, str]:
    """The launch files, name -> text."""
    return {f"{job.name}.sbatch": script(cluster, job)}
