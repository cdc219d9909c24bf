"""A job to a running Ray, by its own client, which reads the token from the environment or ~/.ray/auth_token."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from clusters.backend import LaunchError
from clusters.description import Cluster
from clusters.job import Job
from clusters.ray_cluster.files import entrypoint

LOST_S = 5.0  # between two tries to follow a log whose connection was lost
TRIES = 60


def launch(cluster: Cluster, job: Job) -> int:
    """Submits, prints the job's log until it ends, and returns its driver's exit code.

    Raises LaunchError.
    """
    address = cluster.ray.dashboard
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # how web sockets close
    try:
        client = JobSubmissionClient(address)
        submission = client.submit_job(
            entrypoint=entrypoint(cluster, job),
            submission_id=f"{job.name}-{secrets.token_hex(4)}",  # Ray's own say nothing
            runtime_env={"working_dir": str(job.root), "env_vars": cluster.environment},
        )
    except (RuntimeError, AuthenticationError, OSError, ValueError) as error:  # what it raises of servers and answers
        raise LaunchError(f"ray.dashboard: no job was taken at {address}: {_first_line(error)}") from None
    print(f"job {submission}: ray job logs --follow, status or stop, each with --address {address}", flush=True)
    details = _follow(client, submission)
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status == "SUCCEEDED":
        return 0
    raise LaunchError(f"job {submission}: {details.status}: {_first_line(details.message or 'Ray gives no reason')}")


def _follow(client: JobSubmissionClient, submission: str) -> JobDetails:
    """Prints the log, and what it has grown by where the connection was lost meanwhile."""

    printed = tries = 0  # characters; without an answer, in a row

    async def tail() -> None:
        nonlocal printed
        seen = 0
        async for lines in client.tail_job_logs(submission):
            fresh = lines[max(0, printed - seen) :]
            seen += len(lines)
            printed = max(printed, seen)
            print(fresh, end="", flush=True)

    while tries < TRIES:
        try:
            asyncio.run(tail())
            details, tries = client.get_job_info(submission), 0
            if details.status.is_terminal():
                return details
        except (RuntimeError, OSError, aiohttp.ClientError):  # the head may come back; the job does not depend on us
            tries += 1
            if tries == 1:
                print(f"job {submission}: no answer, asked again every {LOST_S:g} s", file=sys.stderr, flush=True)
        time.sleep(LOST_S)
    raise LaunchError(f"job {submission} cannot be followed any more; it may go on")


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Traceback" in lines[0] else lines[0]  # a server's own
