"""Host time and host reads of a training step, this tree against another commit, in turn.

    python -m benchmarks.engine.step --before REV

writes benchmarks/results/step.json. Each side is a process that stays (worker.py), the other commit's in a git
worktree; the students are so small that arithmetic hardly counts, as on a GPU that waits for its host.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, write
from benchmarks.common.pairs import MINIMUM, in_turn, ratios, spread
from benchmarks.engine.worker import CASES
from models.one_line import OneLineError
from orchestrator.spec.messages import Parser

WORKER = Path(__file__).with_name("worker.py")
MOST_TIME, MOST_READS = 0.4, 2.0  # goals: host time over the one before, reads a step


class Worker:
    """A process that times and counts steps by the packages of a tree."""

    def __init__(self, tree: Path) -> None:
        settings = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            cwd=tree,
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, command: str, case: str) -> Any:
        """The answer to a command. Raises OneLineError if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{command} {case}\n")
            self._process.stdin.flush()
            return json.loads(next(line for line in self._process.stdout if line.startswith("{")))
        except (StopIteration, BrokenPipeError):
            raise OneLineError(f"{WORKER.name} has ended with code {self._process.wait()}") from None

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is removed afterwards. Raises OneLineError: there is none."""
    with tempfile.TemporaryDirectory() as folder:
        tree, git = Path(folder) / "tree", ("git", "-C", str(ROOT), "worktree")
        made = subprocess.run((*git, "add", "--detach", str(tree), revision), capture_output=True, text=True)
        if made.returncode:
            raise OneLineError(f"--before: {revision!r}: {made.stderr.strip().splitlines()[-1]}")
        try:
            yield tree
        finally:
            subprocess.run((*git, "remove", "--force", str(tree)), check=True, capture_output=True)


def compared(before: Worker, after: Worker, case: str, pairs: int) -> dict[str, Any]:
    """The figures of one student."""
    arms = {"before": partial(before.ask, "time", case), "after": partial(after.ask, "time", case)}
    rounds = in_turn(arms, pairs, partial(print, flush=True))
    milliseconds = {name: spread([measured[name]["host_ms"] for measured in rounds]) for name in arms}
    counts = {name: worker.ask("count", case) for name, worker in (("before", before), ("after", after))}
    return {"host_ms": milliseconds, "host_ratio": ratios(rounds, "after", "before", "host_ms"), "a_step": counts}


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="REV", help="the commit to compare with")
    parser.add_argument("--pairs", type=count, default=MINIMUM, help="of timings, each student")
    parser.add_argument("--out", default=RESULTS, metavar="FOLDER", help="of the result")
    given = parser.parse_args()
    machine, cases = facts(), {}
    with worktree(given.before) as tree:
        before, after = Worker(tree), Worker(ROOT)
        try:
            for case in CASES:
                print(case, flush=True)
                cases[case] = compared(before, after, case, given.pairs)
        finally:
            before.close()
            after.close()
    goals = {}
    for case, figures in cases.items():
        ratio, reads = figures["host_ratio"]["median"], figures["a_step"]["after"]["host_reads"]
        goals[f"{case}: host time, after over before"] = {"value": ratio, "goal": MOST_TIME, "at": "most"}
        goals[f"{case}: host reads a step"] = {"value": reads, "goal": MOST_READS, "at": "most"}
    write(given.out, "step", machine, {"before": given.before, "cases": cases, "goals": goals})
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
