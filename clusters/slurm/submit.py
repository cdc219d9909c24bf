"""Submits a job, follows its log through requeues to its end, and returns its exit code.

The controller is asked, no accounting database: many clusters have none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from clusters.backend import LaunchError
from clusters.description import Cluster
from clusters.job import Job
from clusters.slurm.script import log, place, script
from orchestrator.store.place import local_folder

LOOK_S = 1.0  # at the log
ASK_S = 5.0  # the controller, which has others to serve
AWAY_S = 600.0  # how long the controller may give no answer
SETTLE_S = 2.0  # for the last lines to come over a shared disk
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")


def submit(cluster: Cluster, job: Job) -> str:
    """The job's number. Raises LaunchError."""
    if shutil.which("sbatch") is None:
        raise LaunchError("sbatch is missing: this command belongs on a login node of the Slurm cluster")
    _refuse_open_secrets(cluster, job)
    for field in ("results", "store"):
        if path := local_folder(place(job.root, getattr(cluster, field))):
            try:
                path.mkdir(parents=True, exist_ok=True)  # Slurm makes no folder for a log
            except OSError as error:
                raise LaunchError(f"{field}: {path} cannot be made: {error.strerror}") from None
    log(cluster, job).parent.mkdir(parents=True, exist_ok=True)
    # on the command line as well, since SBATCH_EXPORT of the environment would win over the script
    done = subprocess.run(
        ["sbatch", "--parsable", "--export=NONE"],
        input=script(cluster, job),
        cwd=job.root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = [line.removeprefix("sbatch: ").strip() for line in done.stderr.splitlines() if line.strip()]
        raise LaunchError(f"sbatch refuses the job: {'; '.join(words)}")
    return done.stdout.strip().partition(";")[0]


def _refuse_open_secrets(cluster: Cluster, job: Job) -> None:
    """As the script does on each node; here nobody waits for it. The file may be on the nodes alone."""
    if cluster.slurm.secrets_file and (file := job.root / cluster.slurm.secrets_file).exists():
        mode = file.stat().st_mode & 0o777
        if mode & 0o077:
            raise LaunchError(f"slurm.secrets_file: others may read it (mode {mode:o}): chmod 600 {file}")


def launch(cluster: Cluster, job: Job) -> int:
    """Submits the job and follows it. Its exit code; 128 + N where signal N ended it, 1 where Slurm did."""
    number = submit(cluster, job)
    output = log(cluster, job, number)
    print(f"job {number}; log: {output}; run folder: {place(job.root, cluster.results)}/{job.name}", flush=True)
    try:
        return follow(number, output)
    except KeyboardInterrupt:
        print(f"\njob {number} goes on; follow it: tail -F {output}; end it: scancel {number}", file=sys.stderr)
        raise


def follow(number: str, output: Path) -> int:
    """Shows the log as it grows, and what becomes of the job."""
    shown, said, answered, asked = 0, "", time.monotonic(), 0.0
    while True:
        shown = show(output, shown)
        now = time.monotonic()
        if now - asked >= ASK_S:
            asked = now
            known = describe(number)
            if known:
                answered = now
                state, reason = known["JobState"], known.get("Reason", "None")
                line = f"job {number}: {state}" + (f" ({reason})" if reason != "None" else "")
                if line != said:
                    print(line, flush=True)
                    said = line
                if state in ENDED:
                    break
            elif now - answered > AWAY_S:
                raise LaunchError(f"Slurm has not told about job {number} for {AWAY_S:g} s; its log: {output}")
        time.sleep(LOOK_S)
    time.sleep(SETTLE_S)
    show(output, shown)
    code, _, signal = known.get("ExitCode", "0:0").partition(":")
    if int(code) or state == "COMPLETED":
        return int(code)
    return 128 + int(signal) if int(signal) else 1


def describe(number: str) -> dict[str, str]:
    """What the controller knows of a job; nothing if it gives no answer."""
    command = ["scontrol", "show", "job", "-o", number]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout)) if "JobState=" in done.stdout else {}


def show(output: Path, shown: int) -> int:
    """Prints the file from a byte on; the byte that it ends at."""
    if not output.exists():
        return shown
    with output.open("rb") as file:
        file.seek(shown)
        new = file.read()
    sys.stdout.write(new.decode(errors="replace"))
    sys.stdout.flush()
    return shown + len(new)
