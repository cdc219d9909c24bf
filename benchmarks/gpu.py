"""What one card takes: students packed on it, readers, compiled transforms and graphs, in at most ten minutes.

    python benchmarks/gpu.py                              # on a machine with a GPU, from the repository's root
    python benchmarks/gpu.py --device cpu --seconds 2     # a rehearsal: it shows that the script runs, and no more

It needs this environment and the repository: no network, no Ray, no server. Measurements come in the order of their
worth, each with a time limit of its own. The file is written after each of them, so that whoever stops it keeps what
was measured; what there was no time for, or failed, is named there.

    packed     1, 2, 4, 8 processes train students of N = 16, 32, 64, 128 at the same time, from a batch on the device
    readers    N = 16 and 64 from one batch on the device (device), from one that is copied in each step (host), and
               from a store on the local disk (reader)
    compile    N = 64 and 128 with g_a and g_s by torch.compile, beside the same without
    graphs     the same with CUDA graphs, by torch.compile's backend `cudagraphs`

Figures: crops/s of all processes, the share of time that a process waited for batches, peak memory by torch; of the
card its utilisation and memory by nvidia-smi, where it is there; `card` is that of the idle one. `packing` has for each
N how many trials should share the card: by what one alone took of it, by the rule of a sweep, which knows the student
alone, and by crops/s. A sweep takes `training.gpus_per_rank`, one over that number, if its specification gives it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it has its own folder there

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, facts, write
from benchmarks.common.packed import Pool, TooLong
from benchmarks.common.packed_data import Fill, Task
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Training
from orchestrator.sweep.layout import GpuUse, Largest, trial_bytes, trials_a_gpu

SAMPLE_S = 0.3
STARTING_S = {"cuda": 20.0, "cpu": 120.0}  # of a measurement, besides its seconds: the student is built, and warms up
COMPILING_S = 90.0
GOALS = {"packed_8_over_1_N16": (2.0, "least"), "waited_share_reader_N16": (0.02, "most")}


class Bench:
    """The measurements so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.machine = options, facts()
        self.measured: list[dict[str, Any]] = []
        self.left_out: list[dict[str, Any]] = []
        self._deadline = time.monotonic() + options.limit_s
        self.card = sample() if options.device == "cuda" else None
        self.pool = Pool(options.device, max(options.packed))

    def measure(self, kind: str, task: Task, processes: int = 1, more_s: float = 0.0, **named: Any) -> None:
        """One measurement; what goes wrong is written down, and the next one goes on."""
        limit_s = self.options.start_s + task.seconds + more_s
        row: dict[str, Any] = {"kind": kind, "N": task.N, "processes": processes, **named}
        row |= {"batch": task.batch, "side": task.side}
        left_s = self._deadline - time.monotonic()
        if left_s < limit_s / 2:
            row["why"] = f"{left_s:.0f} s were left"
        else:
            seen: list[Card] = []
            try:
                with sampled(self.options.device, seen) as begin:
                    answers = self.pool.run([task] * processes, min(limit_s, left_s), begin)
                row |= summed(answers, seen)
            except (TooLong, RuntimeError, OSError, EOFError) as error:
                row["why"] = str(error) or type(error).__name__
        (self.left_out if "why" in row else self.measured).append(row)
        print(row, flush=True)
        self.write()

    def fill(self, folder: Path, crops: int, side: int) -> str | None:
        """The path of a filled store; None: it could not be filled, which is written down."""
        path = folder / f"store-{crops}"
        left_s = self._deadline - time.monotonic()
        try:
            self.pool.run([Fill(folder=str(path), count=crops, side=side)], min(left_s, self.options.fill_s))
        except (TooLong, RuntimeError, OSError, EOFError) as error:
            self.left_out.append({"kind": "readers", "source": "reader", "why": f"fill: {error}"})
            return None
        return str(path)

    def write(self) -> None:
        """All of it so far."""
        rehearsal = self.options.device == "cpu"
        what = (
            "a rehearsal on a CPU: it shows that the script runs, and says nothing of a GPU" if rehearsal else "a GPU"
        )
        settings = {name: value for name, value in vars(self.options).items() if name != "results"}
        card = None if self.card is None else self.card._asdict()
        figures = {"rehearsal": rehearsal, "what": what, "card": card, "settings": settings}
        figures |= {"measured": self.measured, "left_out": self.left_out}
        figures |= {"packing": packing(self.measured, self.card), "goals": goals(self.measured)}
        write(self.options.results, self.options.name, self.machine, figures)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    small = options.device == "cpu"
    options.packed = options.packed or ([1, 2] if small else [1, 2, 4, 8])
    options.N = options.N or ([16, 32] if small else [16, 64, 32, 128])
    options.start_s = options.start_s or STARTING_S[options.device]
    options.name = options.name or ("gpu-rehearsal" if small else "gpu")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bench = Bench(options)
    task = Task(
        device=options.device,
        family="hyperprior",
        N=options.N[0],
        batch=2 if small else 16,
        side=64 if small else 256,
        seconds=options.seconds,
        precision="fp32" if small else "bf16",
    )
    folder = Path(tempfile.mkdtemp(prefix="bench-gpu-"))
    try:
        _all(bench, task, folder, small)
    finally:
        bench.pool.close()
        bench.write()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _all(bench: Bench, task: Task, folder: Path, small: bool) -> None:
    options = bench.options
    first, second = options.N[0], options.N[1]
    for N in options.N:
        for processes in options.packed:
            bench.measure("packed", replace(task, N=N), processes)
    if (store := bench.fill(folder, 40 if small else 640, task.side)) is not None:
        for N in (first, second):
            for source in ("device", "host", "reader"):
                bench.measure("readers", replace(task, N=N, source=source, folder=store), source=source)
    large = options.N[-1:] if small else [64, 128]
    arms = [("compile", None), ("compile", "eager" if small else "inductor")]
    arms += [] if small else [("graphs", "cudagraphs")]
    for N in large:
        for kind, compiler in arms:
            bench.measure(kind, replace(task, N=N, compiler=compiler), more_s=COMPILING_S, compiler=compiler)


def summed(answers: Sequence[dict[str, Any]], seen: Sequence[Card]) -> dict[str, Any]:
    """Of all processes, and of the card while they trained.

    Args:
        answers: of each process.
        seen: the card, again and again.
    """
    memory = [answer["memory_bytes"] for answer in answers if answer["memory_bytes"] is not None]
    return {
        "crops_per_s": sum(answer["crops_per_s"] for answer in answers),
        "step_ms": fmean(answer["step_ms"] for answer in answers),
        "waited_share": fmean(answer["waited_share"] for answer in answers),
        "parameters": answers[0]["parameters"],
        "memory_bytes_a_process": max(memory, default=None),
        "card_utilisation_pct": fmean(each.utilisation_pct for each in seen) if seen else None,
        "card_memory_mib": max((each.used_mib for each in seen), default=None),
    }


def packing(measured: Sequence[dict[str, Any]], card: Card | None) -> dict[str, dict[str, int | None]]:
    """For each N how many trials should share the card: by what one took, by the rule without that, and by crops/s.

    Args:
        measured: the rows so far.
        card: before anything ran there; None: there is none, and so nothing to say.
    """
    found: dict[str, dict[str, int | None]] = {}
    for N in dict.fromkeys(row["N"] for row in measured if row["kind"] == "packed" and card is not None):
        rows = {row["processes"]: row for row in measured if row["kind"] == "packed" and row["N"] == N}
        one, most = rows.get(1), max(rows)
        if card is None or one is None or one["card_utilisation_pct"] is None:
            continue
        used = GpuUse((one["card_memory_mib"] - card.used_mib) * 2**20, one["card_utilisation_pct"] / 100)
        training, largest = Training(batch_size=one["batch"]), Largest(one["parameters"], N, one["side"])
        rule = (largest.parameters, trial_bytes(training, largest), card.total_mib * 2**20, most)
        found[f"N={N}"] = {
            "by_measurement": trials_a_gpu(*rule, measured=used),
            "by_rule": trials_a_gpu(*rule),
            "fastest": max(rows, key=lambda count: float(rows[count]["crops_per_s"])),
        }
    return found


def goals(measured: Sequence[dict[str, Any]]) -> dict[str, dict[str, object]]:
    """The goals whose figures there are."""

    def found(**like: Any) -> dict[str, Any] | None:
        return next((row for row in measured if like.items() <= row.items()), None)

    one, eight = (found(kind="packed", N=16, processes=processes) for processes in (1, 8))
    reader = found(kind="readers", N=16, source="reader")
    values = {
        "packed_8_over_1_N16": eight["crops_per_s"] / one["crops_per_s"] if one and eight else None,
        "waited_share_reader_N16": reader["waited_share"] if reader else None,
    }
    return {
        name: {"value": value, "goal": GOALS[name][0], "at": GOALS[name][1]}
        for name, value in values.items()
        if value is not None
    }


class Card(NamedTuple):
    """What nvidia-smi says of the first card."""

    utilisation_pct: float
    used_mib: float
    total_mib: float


def sample() -> Card | None:
    """The first card now; None: there is no nvidia-smi, or it does not say."""
    fields = "utilization.gpu,memory.used,memory.total"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
        return Card(*(float(value) for value in done.stdout.splitlines()[0].split(",")))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


@contextmanager
def sampled(device: str, seen: list[Card]) -> Iterator[Any]:
    """Samples of the card go into a list, from the call of what this yields until the end of the context."""
    began, ended = threading.Event(), threading.Event()

    def watch() -> None:
        began.wait()
        while not ended.wait(SAMPLE_S):
            if (found := sample()) is not None:
                seen.append(found)

    thread = threading.Thread(target=watch, daemon=True)
    if device == "cuda":
        thread.start()
    try:
        yield began.set
    finally:
        ended.set()
        began.set()
        if device == "cuda":
            thread.join()


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--seconds", type=float, default=6.0, help="that a measurement trains for")
    add("--limit-s", type=float, default=570.0, help="of all measurements; none begins that would end much later")
    add("--start-s", type=float, help="of a measurement, to build a student and warm up; default: 20, on a CPU 120")
    add("--fill-s", type=float, default=90.0, help="to fill the store that the reader reads")
    add("--packed", type=count, nargs="+", help="processes; default: 1 2 4 8, on a CPU 1 2")
    add("--N", type=count, nargs="+", help="two or more; default: 16 64 32 128, on a CPU 16 32")
    add("--results", default=RESULTS, metavar="FOLDER")
    add("--name", help="of the file of results; default: gpu, on a CPU gpu-rehearsal")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
