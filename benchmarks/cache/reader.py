"""What reading a crop costs, before and after, side by side; and what a fast device waits for.

    python -m benchmarks.cache.reader [--before REVISION] [--rounds 5] [--crops 2560] [--size 256] [--work FOLDER]

`before` is another revision of this repository in a git worktree. Each side is a process, as a worker of a sweep is set
up, and they take turns. A store on file:// holds the outputs of a shipped teacher (M = 96) for 64 crops of photographs,
in another order in each shard, so that no two objects are equal. A run opens a reader and reads 8 crops a step: crops a
second of CPU time, over all threads, with all that opening and checking objects takes.

    prim-l1  x, y and x_hat, the plan twice (by default a sweep's trials see a crop ten times)
    feds     x and what the first phase of `feds` compares, the plan once: 7 taps of 40 shards are more than 256 objects

`before` and `floats` undo on the CPU what the store has; `stored` hands its bytes on, for the device to undo; `decoded`
too, from a node cache that has decoded files. `workers` is `stored` with two threads: crops a second of wall time.
`device` is a simulated one that takes 1 ms a step, x, y and x_hat, the plan twice: which share of the second time it
waited. What was waited the first time, when objects are opened and checked, is in `rounds`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.cache.reader_side import BATCH_SIZE, plans
from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, TRAIN, WEIGHTS, facts, write
from benchmarks.common.pairs import MINIMUM, in_turn, ratios, spread
from models.weights import load_ladder
from orchestrator.distill.targets import taps
from orchestrator.features.format.key import FeaturePlan
from orchestrator.features.format.ledger import Entry, entry_of, publish_ledger
from orchestrator.features.format.tap_file import encode
from orchestrator.photographs.passes import SHARD_CROPS
from orchestrator.spec.loss import Loss
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store
from orchestrator.worker_settings import WORKER_SETTINGS

BEFORE = "09f5dd7"  # readers handed on floats, and 256 objects were open
TEACHER = str(WEIGHTS / "teacher-hyperprior.safetensors")
COMPARED = [
    tap
    for tap in taps([(Loss(preset="feds"), "hyperprior")], teacher="hyperprior", rate_points=5)
    if tap != "entropy"  # read once, when a sweep starts
]
TAPS = ["x_hat", *COMPARED]
ARMS = {"prim-l1": ["y", "x_hat"], "feds": [tap for tap in COMPARED if tap != "y"]}
PASSES = {"prim-l1": 2, "feds": 1}
STEP_S = 0.001
GOALS = {
    "prim-l1, stored over before": 3.0,
    "prim-l1, decoded over before": 15.0,
    "feds on file://, stored over before": 3.5,
}
WAIT_GOAL = 0.02

Side = Callable[..., dict[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine = facts()
    with ExitStack() as held:
        work = Path(options.work or held.enter_context(tempfile.TemporaryDirectory(prefix="reader-")))
        store = Store(work / "store")
        fill(store, options.crops, options.size)
        before = held.enter_context(revision(options.before, work / "before"))
        sides = {
            name: held.enter_context(side(tree, store.url, options.crops, options.size))
            for name, tree in {"before": before, "after": ROOT}.items()
        }
        measured = in_turn(arms(sides, options.crops // BATCH_SIZE, work / "node"), options.rounds, _say)
    given = {name: value for name, value in vars(options).items() if name not in ("work", "results")}
    settings = {**given, "batch_size": BATCH_SIZE, "taps": ARMS, "step_s": STEP_S}
    write(options.results, "reader", machine, {"settings": settings, **summary(measured)})
    return 0


def arms(sides: Mapping[str, Side], steps: int, cache: Path) -> dict[str, Callable[[], dict[str, float]]]:
    """Name -> a run. What fills the node cache is run at once, and not measured."""
    before, after, decoded = sides["before"], sides["after"], {"decoded": str(cache)}
    stored = {"as_stored": True}

    def run(of: Side, name: str, **more: Any) -> Callable[[], dict[str, float]]:
        return lambda: of(**{"taps": TAPS, "reads": ARMS[name], "steps": PASSES[name] * steps, **more})

    for name in ARMS:
        run(after, name, options=stored, **decoded)()
    made = {f"{name}, before": run(before, name) for name in ARMS}
    made |= {f"{name}, stored": run(after, name, options=stored) for name in ARMS}
    made |= {f"{name}, decoded": run(after, name, options=stored, **decoded) for name in ("prim-l1", "feds")}
    made |= {
        "prim-l1, floats": run(after, "prim-l1"),
        "prim-l1, decoded floats": run(after, "prim-l1", **decoded),
        "prim-l1, workers": run(after, "prim-l1", options={**stored, "workers": 2}),
    }
    device = {"step_s": STEP_S, "settling": steps}
    made["device, before"] = run(before, "prim-l1", **device)
    made["device, stored"] = run(after, "prim-l1", **device, options=stored)
    made["device, decoded"] = run(after, "prim-l1", **device, **decoded, options=stored)
    return made


def summary(measured: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Ratios with their spread, what the arms took, and the goals."""

    def over(name: str, arm: str, field: str = "crops_a_cpu_s", under: str = "before") -> dict[str, Any]:
        return ratios(measured, f"{name}, {arm}", f"{name}, {under}", field)

    figures: dict[str, Any] = {
        "prim-l1, stored over before": over("prim-l1", "stored"),
        "prim-l1, decoded over before": over("prim-l1", "decoded"),
        "prim-l1, floats over before": over("prim-l1", "floats"),
        "prim-l1, decoded floats over before": over("prim-l1", "decoded floats"),
        "prim-l1, two workers over one, wall time": over("prim-l1", "workers", "crops_a_s", "stored"),
        "feds on file://, stored over before": over("feds", "stored"),
        "feds on file://, decoded over before": over("feds", "decoded"),
    }
    waits = {
        name: spread([rounds[name]["data_wait_share"] for rounds in measured])
        for name in ("device, before", "device, stored", "device, decoded")
    }
    goals = {name: {"value": figures[name]["median"], "goal": goal, "at": "least"} for name, goal in GOALS.items()}
    goals["share of time a 1 ms device waits, decoded"] = {
        "value": waits["device, decoded"]["median"],
        "goal": WAIT_GOAL,
        "at": "most",
    }
    for name, goal in goals.items():
        _say(f"{name}: {goal['value']:.3g}, goal at {goal['at']} {goal['goal']}")
    crops = {name: spread([rounds[name]["crops_a_cpu_s"] for rounds in measured]) for name in measured[0]}
    return {"ratios": figures, "waits": waits, "crops_a_cpu_s": crops, "rounds": measured, "goals": goals}


def fill(store: Store, crops: int, size: int) -> None:
    """Objects for all taps, unless there are some already."""
    plan, pixels, features = plans(TEACHER, crops, size, TAPS)
    if store.exists(features.ledger()):
        return
    content = outputs(size)
    for wanted in (pixels, features):
        made: dict[int, dict[str, Entry]] = {}
        for shard, ids in enumerate(plan.shards):
            made[shard] = {tap: _published(store, wanted, tap, shard, content[tap], len(ids)) for tap in wanted.taps}
        publish_ledger(store, wanted, made)
    _say(f"{sum(store.sizes('features').values()) / 1e6:.0f} MB of {crops} crops in {store.url}")


def _published(store: Store, features: FeaturePlan, tap: str, shard: int, content: Any, crops: int) -> Entry:
    data = encode(tap, np.roll(content, shard, axis=0)[:crops])
    store.publish(features.object(tap, shard), data)
    return entry_of(features.key(tap, shard), data)


def outputs(size: int) -> dict[str, Any]:
    """Pixels of a shard's crops of photographs, and a teacher's outputs for them, as they are encoded."""
    draw, pixels = np.random.default_rng(0), []
    paths = sorted(Path(TRAIN).glob("*.*"))[: SHARD_CROPS // 4]
    for path in paths:
        rgb = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(4):
            top, left = (int(draw.integers(0, side - size + 1)) for side in rgb.shape[:2])
            pixels.append(rgb[top : top + size, left : left + size].transpose(2, 0, 1))
    x = np.stack(pixels)
    ladder = load_ladder(TEACHER)
    with torch.inference_mode():
        parts = [ladder(part.float().div(255), 2, taps=tuple(TAPS)) for part in torch.from_numpy(x).split(8)]
    made = {tap: torch.cat([part[tap] for part in parts]) for tap in TAPS}
    made["x_hat"] = made["x_hat"].clamp(0, 1).mul(255).round().byte()
    return {"x": x, **{tap: tensor.numpy() for tap, tensor in made.items()}}


@contextmanager
def revision(name: str, folder: Path) -> Iterator[Path]:
    """A worktree of a revision, removed in the end."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run((*git, "add", "--detach", "--force", str(folder), name), check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run((*git, "remove", "--force", str(folder)), check=True)


@contextmanager
def side(tree: Path, store: str, crops: int, size: int) -> Iterator[Side]:
    """A process that runs reader_side.py on the code of a tree."""
    script = Path(__file__).with_name("reader_side.py")
    command = [sys.executable, "-P", str(script), store, TEACHER, str(crops), str(size)]
    environment = {**os.environ, **WORKER_SETTINGS, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def run(**fields: Any) -> dict[str, float]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(fields) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise subprocess.CalledProcessError(process.wait(), command)
            figures: dict[str, float] = json.loads(answer)
            return figures

        try:
            yield run
        finally:
            process.stdin.close()


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--before", default=BEFORE, metavar="REVISION")
    add("--rounds", type=count, default=MINIMUM)
    add("--crops", type=count, default=2560, help="8 shards a rate point, a window")
    add("--size", type=count, default=256)
    add("--work", default=None, metavar="FOLDER", help="of store and node cache; a store is used again")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
