"""The codec in somebody's hands: time, memory, size, and streams that no encoder wrote.

    python -m benchmarks.whole.codec --before REVISION --student WEIGHTS --photographs FOLDER

`--before` is the revision whose codec is compared: it is checked out into a worktree, and both encode and decode the
same photographs in turn, each in a process of its own with one thread, beside the student's bundle, the teacher, JPEG,
WebP, AVIF and JPEG XL. What rounding to whole numbers costs is the difference in bytes. Then: peak memory at 24
megapixels; the size of an environment with nothing but the codec; damaged and crafted streams; and `lic bench` on all
photographs with one process, and with one a core. Results: codec.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, photographs, write
from benchmarks.common.pairs import in_turn, ratios, spread
from orchestrator.photographs.photos import load_rgb
from orchestrator.spec.messages import Parser
from testing.hostile import crafted, damaged, outcomes

TEACHER = ROOT / "models" / "weights" / "teacher-hyperprior.safetensors"
LARGEST = 1 << 20  # pixels, of hostile streams
SIDES = (6000, 4000)  # 24 megapixels
TIMES = ROOT / "benchmarks" / "whole" / "codec_times.py"
QUALITIES = {"jpeg": "30,60,85", "webp": "30,60,85", "avif": "30,50,70", "jxl": "30,60,85"}
BENCH = "import sys; from lic_codec.cli import main; main(sys.argv[1:])"
# Not ru_maxrss, which counts what the parent had when the process was begun.
MEMORY = "import re, sys; from pathlib import Path; from lic_codec.cli import main\ntry: main(sys.argv[1:])\n"
MEMORY += "finally: print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)"


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine = facts()
    from models.export import export
    from models.weights import load_ladder

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        before = work / "before"
        subprocess.run(["git", "worktree", "add", "--detach", str(before), options.before], cwd=ROOT, check=True)
        try:
            bundle = export(load_ladder(options.student), work / "bundle", name="student")
            result = _times(options, before, bundle)
            result["memory_24_megapixels"] = _memory(bundle, work, options.photographs)
            result["environment"] = _environment(work)
            result["hostile"] = _hostile(bundle, options.photographs, options.streams)
            result["evaluation"] = _evaluation(bundle, work, options)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    result["goals"] = _goals(result)
    write(options.results, "codec", machine, result)
    return 0


def _times(options: argparse.Namespace, before: Path, bundle: Path) -> dict[str, Any]:
    """Medians of the rounds, in ms a megapixel; and what whole numbers cost."""
    files = [photograph.path for photograph in photographs([options.photographs], 1)[: options.count]]
    points: dict[str, list[dict[str, float]]] = {}

    def arm(name: str, kind: str, model: str | Path, rates: str, tree: Path) -> Any:
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", str(TIMES), kind, str(model), rates, *files]  # -P: beside it lies a models.py

        def run() -> dict[str, float]:
            done = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            rows = points[name] = [json.loads(line) for line in done.stdout.splitlines()]
            megapixels = sum(row["pixels"] for row in rows) / 1e6
            sums = {field: 1000 * sum(row[field] for row in rows) / megapixels for field in ("encode_s", "decode_s")}
            return {"encode_ms": sums["encode_s"], "decode_ms": sums["decode_s"]}

        return run

    arms = {
        "student, before": arm("student, before", "torch", options.student, "0,2,4", before),
        "student": arm("student", "torch", options.student, "0,2,4", ROOT),
        "student's bundle": arm("student's bundle", "bundle", bundle, "0,2,4", ROOT),
        "teacher": arm("teacher", "torch", TEACHER, "0,2,4", ROOT),
        **{kind: arm(kind, kind, "-", rates, ROOT) for kind, rates in QUALITIES.items()},
    }
    rounds = in_turn(arms, options.rounds, lambda line: print(line, flush=True))
    fields = ("encode_ms", "decode_ms")
    return {
        "photographs": len(files),
        "ms_a_megapixel": {
            name: {field: spread([row[name][field] for row in rounds]) for field in fields} for name in arms
        },
        "before_over_bundle": {field: ratios(rounds, "student, before", "student's bundle", field) for field in fields},
        "teacher_over_student": {field: ratios(rounds, "teacher", "student", field) for field in fields},
        "macs_teacher_over_student": _macs(options.student),
        "whole_numbers": _cost(points["student, before"], points["student"]),
    }


def _macs(student: str) -> dict[str, float]:
    from models.macs import count as macs
    from models.weights import load_ladder

    teacher, own = macs(load_ladder(TEACHER)), macs(load_ladder(student))
    return {"encoder": teacher.encoder / own.encoder, "decoder": teacher.decoder / own.decoder}


def _cost(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of version 3 over version 2, headers and coder included."""
    sums = [sum(row["bytes"] for row in rows) for rows in (before, now)]
    differences = [new["psnr_db"] - old["psnr_db"] for old, new in zip(before, now, strict=True)]
    return {"bytes_pct": 100 * (sums[1] / sums[0] - 1), "least_psnr_difference_db": min(differences)}


def _memory(bundle: Path, work: Path, folder: str) -> dict[str, float]:
    """MiB at the peak, and seconds, one thread."""
    tiles = [load_rgb(photograph) for photograph in photographs([folder], 1)]
    side = min(min(rgb.shape[:2]) for rgb in tiles)
    width, height = SIDES
    across = -(-width // side)
    rows = [
        np.concatenate([tiles[(row * across + place) % len(tiles)][:side, :side] for place in range(across)], axis=1)
        for row in range(-(-height // side))
    ]
    Image.fromarray(np.concatenate(rows)[:height, :width].copy()).save(work / "large.png", compress_level=1)
    figures: dict[str, float] = {}
    for name, command in (
        ("encode", ["encode", str(work / "large.png")]),
        ("decode", ["decode", str(work / "large.lic"), "-o", str(work / "large.bmp")]),
    ):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *command, "--model", str(bundle), "--threads", "1"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        figures |= {f"{name}_mib": float(done.stdout.split()[-1]), f"{name}_s": time.perf_counter() - began}
    return figures


def _environment(work: Path) -> dict[str, float]:
    """Megabytes and seconds of an environment that has `pip install ./codec`, and nothing more."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    pip = [str(work / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, str(ROOT / "codec")], check=True)
    seconds = time.perf_counter() - began
    subprocess.run([str(work / "venv" / "bin" / "lic"), "--help"], check=True, stdout=subprocess.DEVNULL)
    sizes = (path.lstat().st_size for path in (work / "venv").rglob("*"))
    return {"mb": sum(sizes) / 1e6, "seconds": seconds}


def _hostile(bundle: Path, folder: str, streams: int) -> dict[str, Any]:
    from lic_codec.bundle import load
    from lic_codec.rates import rate_point

    codec = load(bundle, threads=1).codec
    rgb = load_rgb(photographs([folder], 1)[0])[:128, :192]
    stream = codec.encode(np.ascontiguousarray(rgb), rate_point(codec.entropy, 2))
    figures: dict[str, Any] = {}
    for name, make in (("damaged", damaged), ("crafted", crafted)):
        draw = random.Random(name)
        found = outcomes(codec, (make(stream, draw) for _ in range(streams)), LARGEST)
        shown = {"streams": streams, "images": found.images, "errors": dict(found.errors)}
        figures[name] = shown | {"slowest_s": found.slowest_s}
        print(f"{name}: {figures[name]}", flush=True)
    return figures


def _evaluation(bundle: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `lic bench`, start included, and whether both ways found the same curve."""
    curves: set[str] = set()

    def arm(processes: int) -> Any:
        out = work / f"evaluation-{processes}.json"
        command = [sys.executable, "-c", BENCH, "bench", options.photographs, "--model", str(bundle)]
        command += ["--processes", str(processes), "--out", str(out), "--force"]

        environment = os.environ | {"PYTHONPATH": str(ROOT)}

        def run() -> dict[str, float]:
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            curves.add(json.dumps(json.loads(out.read_text())["results"]))
            return {"seconds": seconds}

        return run

    cores = os.cpu_count() or 1
    arms = {"one process": arm(1), "one a core": arm(cores)}
    rounds = in_turn(arms, options.rounds, lambda line: print(line, flush=True))
    return {
        "cores": cores,
        "seconds": {name: spread([row[name]["seconds"] for row in rounds]) for name in arms},
        "speed_up": ratios(rounds, "one process", "one a core", "seconds"),
        "curves": len(curves),
    }


def _goals(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    memory, hostile = result["memory_24_megapixels"], result["hostile"]
    speed = statistics.median(result["before_over_bundle"]["encode_ms"]["values"])
    undecided = sum(of["streams"] - of["images"] - sum(of["errors"].values()) for of in hostile.values())
    return {
        "environment_mb": {"value": result["environment"]["mb"], "goal": 250, "at": "most"},
        "encoding_faster_than_before": {"value": speed, "goal": 3, "at": "least"},
        "whole_numbers_bytes_pct": {"value": result["whole_numbers"]["bytes_pct"], "goal": 0.01, "at": "most"},
        "peak_mib": {"value": max(memory["encode_mib"], memory["decode_mib"]), "goal": 1024, "at": "most"},
        "hostile_without_answer": {"value": undecided, "goal": 0, "at": "most"},
        "evaluation_speed_up": {"value": result["evaluation"]["speed_up"]["median"], "goal": 1.8, "at": "least"},
        "evaluation_different_curves": {"value": result["evaluation"]["curves"] - 1, "goal": 0, "at": "most"},
    }


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--before", required=True, metavar="REVISION")
    add("--student", required=True, metavar="WEIGHTS")
    add("--photographs", required=True, metavar="FOLDER")
    add("--count", type=count, default=6, help="photographs that are timed")
    add("--rounds", type=count, default=5)
    add("--streams", type=count, default=20_000, help="damaged ones, and crafted ones")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
