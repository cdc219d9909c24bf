"""Ray itself as a launcher: a job for a cluster that runs, and the files to start one by hand or by `ray up`."""

from clusters.ray_cluster.files import check, files
from clusters.ray_cluster.submit import launch

__all__ = ["check", "files", "launch"]
