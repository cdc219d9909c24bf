"""The studies' teachers on a test set: real bitstreams, beside published curves and classical codecs.

    python -m benchmarks.whole.teachers --test KODAK_FOLDER

`jobs/evaluate.py` codes every photograph at every rate point; its curves of the photographs are left out of the result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, write
from benchmarks.whole.study import Goals, goal
from models.macs import count
from models.weights import digest, load_ladder, read_metadata
from orchestrator.spec.messages import Parser

FOLDER = ROOT / "benchmarks" / "teachers"
A, B = "hyperprior-n64", "feds-n64"  # PRIM's design at half its width, and FEDS's
PUBLISHED = ("hyperprior", "mean-scale", "webp", "jpeg", "vtm")
HYPERPRIOR, WEBP = "bmshj2018-hyperprior", "WebP"  # as their curves call themselves
KEPT = ("name", "points", "encode_ms_per_megapixel", "decode_ms_per_megapixel", "threads", "processes")


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine = facts()
    weights = [str(file) for name in (A, B) if (file := FOLDER / f"{name}.safetensors").is_file()]
    published = [str(ROOT / "benchmarks" / "published" / f"{name}.json") for name in PUBLISHED]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "jobs/evaluate.py", *weights, options.test, "--classical", *options.classical]
        subprocess.run([*command, "--against", *published, "--out", str(out)], cwd=ROOT, check=True)
        found = json.loads(out.read_text())
    rates = [_compared(rate) for rate in found["bd_rate"] if rate["distortion"] == "mse"]
    figures = {
        "networks": {Path(file).stem: _network(file) for file in weights},
        "photograph_set": found["photograph_set"],
        "codecs": [{name: codec[name] for name in KEPT if name in codec} for codec in (found, *found["others"])],
        "bd_rate": rates,
        "goals": goals(rates),
    }
    write(options.results, "teachers", machine, figures)
    return 0


def _network(file: str) -> dict[str, Any]:
    """What a weights file is of, and what it takes."""
    ladder = load_ladder(file)
    described, macs = read_metadata(file), count(ladder)
    named = {name: getattr(described, name) for name in ("family", "N", "M", "Z")}
    params = sum(parameter.numel() for parameter in ladder.parameters())
    return {**named, "params": params, "macs_per_pixel": macs.total, "digest": digest(file)}


def goals(rates: Sequence[dict[str, Any]]) -> Goals:
    """In percent; null where there is no valid BD-rate, or no such teacher yet."""

    def of(codec: str, against: str) -> float | None:
        return next((rate["pct"] for rate in rates if (rate["codec"], rate["against"]) == (codec, against)), None)

    return {
        "a_against_published_webp_pct": goal(of(A, WEBP), 0.0, "most"),
        "a_against_published_hyperprior_pct": goal(of(A, HYPERPRIOR), 15.0, "most"),
        "b_against_a_pct": goal(of(B, A), -8.0, "most"),
    }


def _compared(rate: dict[str, Any]) -> dict[str, Any]:
    return {name: rate.get(name) for name in ("codec", "against", "file", "pct", "interval_db", "overlap", "reason")}


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--test", required=True, metavar="FOLDER")
    add("--classical", nargs="+", default=["jpeg", "webp", "avif", "jxl"])
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
