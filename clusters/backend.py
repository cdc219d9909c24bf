"""What Slurm, Kubernetes and Ray have in common as launchers.

Each is a package with three functions:

    check(cluster, spec)    raises SpecError for what this launcher cannot do with them
    files(cluster, job)     name -> text of the launch files; pure
    launch(cluster, job)    sends them, follows the job's log to its end, returns its exit code; raises LaunchError
"""

from __future__ import annotations


class LaunchError(RuntimeError):
    """The job could not be sent, or not be followed; the message is one line."""
