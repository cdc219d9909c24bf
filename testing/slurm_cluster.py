"""A real Slurm of a test's own: a controller, and two nodes in network namespaces with addresses and names.

The nodes share disk and process ids. Slurm sees one CPU on each, so a gang of two ranks spans both. Jobs of
the partition `urgent` preempt those of `normal`, which have GRACE_S for saving, and are put back into the queue.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from testing import hosts
from testing.servers import free_ports

NODES = ("n1", "n2")
GRACE_S = 120
KILL_WAIT_S = 5
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
SETTINGS = """
ClusterName=tests
SlurmctldHost={name}({gateway})
SlurmctldPort={port}
FirstJobId={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5 # else a job that was put back waits 121 s
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait={kill_wait}
OverTimeLimit=10 # a limit can be lowered in mid-job without being over
MpiDefault=none
ReturnToService=2
"""


def missing() -> str | None:
    """Why Slurm can't be run here; None: it can."""
    if reason := hosts.missing():
        return reason
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        needed = "apt-get install --no-install-recommends slurm-wlm slurm-client munge"
        return f"{', '.join(absent)} missing: {needed}"
    return None


class SlurmCluster:
    """While the context lasts; what its programs print is in `folder`."""

    def __init__(self) -> None:
        self._hosts = hosts.Hosts(*NODES)
        self._stack = ExitStack()
        self._daemons: dict[Path, subprocess.Popen[bytes]] = {}  # by their logs
        self.addresses = self._hosts.addresses

    def __enter__(self) -> Self:
        with self._stack:
            self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._stack.enter_context(self._hosts)
            self._configure()
            # nothing of a test's own environment: credentials are what jobs must not get from here
            path = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
            self.environment = path | {"SLURM_CONF": str(self.folder / "slurm.conf")}
            munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
            self._start("munged", ["--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge])
            until(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", ["-D", "-c"])
            for name in NODES:
                self._start("slurmd", ["-D", "-c"], on=name)
            until(self._ready)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        for job in self.run("squeue", "-h", "-o", "%A").split():
            self.run("scancel", job)
        until(lambda: not self.run("squeue", "-h"))
        self._stack.close()

    def run(self, *command: str) -> str:
        """What a command of Slurm prints; nothing while the controller is not up."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job."""
        words = (word.partition("=") for word in self.run("scontrol", "show", "job", "-o", number).split())
        return {name: value for name, _, value in words}

    def _ready(self) -> bool:
        for log, process in self._daemons.items():
            assert process.poll() is None, f"{log.stem} has ended:\n{log.read_text()[-2000:]}"
        return self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T").split() == ["idle", "idle"]

    def _configure(self) -> None:
        self.folder.chmod(0o711)  # munge's socket is everybody's
        (self.folder / "state").mkdir()
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # none uses it, all look for one
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        settings = SETTINGS.format(
            name=socket.gethostname(),
            gateway=self._hosts.gateway,
            port=free_ports(1)[0],
            folder=self.folder,
            kill_wait=KILL_WAIT_S,
            first=secrets.randbelow(10**6) + 1,  # a job's folders in /tmp are named by it
        )
        nodes = "".join(
            f"NodeName={name} NodeHostname={name} NodeAddr={address} CPUs=1 RealMemory=8000\n"
            for name, address in self.addresses.items()
        )
        both = f"Nodes={','.join(NODES)} MaxTime=UNLIMITED OverSubscribe=NO"
        partitions = (
            f"PartitionName=normal {both} Default=YES PriorityTier=1 GraceTime={GRACE_S}\n"
            f"PartitionName=urgent {both} PriorityTier=10 PreemptMode=OFF\n"
        )
        (self.folder / "slurm.conf").write_text(settings + nodes + partitions)

    def _start(self, program: str, arguments: Sequence[str], on: str | None = None) -> None:
        path = shutil.which(program)
        assert path is not None, missing()
        command = [path, *arguments]
        output = self.folder / f"{on or program}.log"
        with output.open("ab") as log:
            self._daemons[output] = subprocess.Popen(
                self._hosts.command(on, command) if on else command,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(_end, self._daemons[output])


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Polls until the condition holds, for so long at most."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
