"""Where the seconds of a whole sweep go, before and after a change: what trains, and what is done beside it.

    python -m benchmarks.whole.startup --work FOLDER --before REVISION [--rounds 3] [--set FIELD=VALUE ...]

Every arm is `jobs/sweep_feds.py` on its own tree's quickstart, in turn and in alternating order, each time with an
empty store and an empty folder for what torch and DeepSpeed compile:

    before      the tree at REVISION, in a git worktree under FOLDER
    after       this tree
    proposed    this tree, with PROPOSED over its specification

A share is of all gangs' time from the start of the process to its end (account.json): training, data_wait, validation,
startup, checkpoints, idle, and one for each phase in which no gang runs. `outside` is what the process took besides,
its imports first of all. To be adopted, `proposed` must have no worse a front than `after`: its BD-rates are beside, by
size, and one seed's differ by a point or so from run to run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, write
from benchmarks.common.pairs import in_turn, ratios, spread
from benchmarks.whole.sweeps import say, start
from orchestrator.spec.messages import Parser

PROPOSED = ("training.precision=auto",)
GOAL = 0.75  # of the gangs' time trains


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    work, machine = Path(options.work).absolute(), facts()
    work.mkdir(parents=True, exist_ok=True)
    arms: dict[str, Callable[[], dict[str, float]]] = {}
    fronts: dict[str, list[dict[str, float]]] = {}

    def arm(name: str, tree: Path, overrides: Sequence[str]) -> None:
        def run() -> dict[str, float]:
            found, front = sweep(tree, work / name, [*options.set, *overrides])
            fronts.setdefault(name, []).append(front)
            return found

        arms[name] = run

    before = work / "tree"
    if options.before:
        shutil.rmtree(before, ignore_errors=True)
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(before), options.before)
        arm("before", before, ())
    arm("after", ROOT, ())
    arm("proposed", ROOT, PROPOSED)
    try:
        rounds = in_turn({name: arms[name] for name in arms if name in (options.arms or arms)}, options.rounds, say)
    finally:
        if options.before:
            _git("worktree", "remove", "--force", str(before))
    settings = {name: value for name, value in vars(options).items() if name not in ("work", "results")}
    figures = summary(rounds) | {"fronts": fronts, "rounds": rounds}
    write(options.results, options.name, machine, {"settings": settings, **figures, "goals": goals(rounds)})
    return 0


def sweep(tree: Path, folder: Path, overrides: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """A sweep from nothing: its seconds and shares, and the best BD-rate of each size of its front."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(tree / "jobs" / "sweep_feds.py"), "--spec", str(tree / "jobs" / "specs" / "quickstart.yaml")]
    spec = tree / "data" / "quickstart"
    places = [f"results={folder / 'runs'}", f"store={folder / 'store'}"]
    places += [f"photographs.{name}={spec / name}" for name in ("train", "validation")]
    weights = tree / "models" / "weights"
    names = ("hyperprior", "mean-scale")
    places += [f"teachers.{i}.weights={weights / f'teacher-{name}.safetensors'}" for i, name in enumerate(names)]
    for override in (*places, *overrides):
        command += ["--set", override]
    compiled = folder / "compiled"
    began = time.monotonic()
    process = start(command, folder, PYTHONPATH=str(tree), TORCH_EXTENSIONS_DIR=str(compiled))
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        raise
    elapsed = time.monotonic() - began
    if code:
        raise SystemExit(f"exit code {code}: {folder}/output.txt")
    run = next((folder / "runs").glob("*/account.json")).parent
    front = json.loads((run / "front.json").read_text())["students"]
    extensions = sum(path.suffix == ".so" for path in compiled.rglob("*"))
    best: dict[str, float] = {}
    for student in front:
        name, value = student["complexity_class"], student["bd_rate_pct"]
        best[name] = min(value, best.get(name, value))
    account = json.loads((run / "account.json").read_text())
    return {"wall_s": elapsed, "compiled_extensions": float(extensions)} | shares(account, elapsed), best


def shares(account: dict[str, Any], elapsed: float) -> dict[str, float]:
    """What a sweep's time was, as shares of the time that all gangs had; they add up to 1.

    Args:
        account: account.json.
        elapsed: seconds that the process took.
    """
    phases, gangs = account["phases_s"], account["gangs"]
    count_of_gangs = sum(gangs.values()) / phases["trials"]
    found = {f"share_{name.removesuffix('_s')}": seconds / count_of_gangs / elapsed for name, seconds in gangs.items()}
    others = {f"share_phase_{name}": seconds / elapsed for name, seconds in phases.items() if name != "trials"}
    outside = 1 - sum(phases.values()) / elapsed
    return found | others | {"share_outside": outside, "training_s": gangs["training_s"] / count_of_gangs}


def summary(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Of each arm the median, least and most of each figure, and wall time over the first arm's."""
    first, *others = rounds[0]
    arms = {
        name: {field: spread([each[name].get(field) for each in rounds]) for field in rounds[0][name]}
        for name in rounds[0]
    }
    return {"arms": arms, "wall_over_first": {name: ratios(rounds, name, first, "wall_s") for name in others}}


def goals(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, object]]:
    """The goals, met or missed."""
    found: dict[str, dict[str, object]] = {}
    for name in ("after", "proposed"):
        if name in rounds[0]:
            trained = fmean(each[name]["share_training"] for each in rounds)
            found[f"share_that_trains_{name}"] = {"value": trained, "goal": GOAL, "at": "least"}
            compiled = max(each[name]["compiled_extensions"] for each in rounds)
            found[f"compiled_extensions_{name}"] = {"value": compiled, "goal": 0, "at": "most"}
    return found


def _git(*arguments: str) -> None:
    subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", required=True, metavar="FOLDER", help="the sweeps' folders, and the tree of --before")
    add("--before", metavar="REVISION", help="default: no such arm")
    add("--arms", nargs="+", choices=("before", "after", "proposed"), help="default: all")
    add("--rounds", type=count, default=3)
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of all arms")
    add("--results", default=RESULTS, metavar="FOLDER")
    add("--name", default="startup", help="of the file of results")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
