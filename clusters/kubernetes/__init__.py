"""Sweeps on Kubernetes: one RayJob of KubeRay, which brings its Ray cluster up, runs the sweep, and takes it down."""

from clusters.kubernetes.checks import check
from clusters.kubernetes.manifests import files
from clusters.kubernetes.submit import launch

__all__ = ["check", "files", "launch"]
