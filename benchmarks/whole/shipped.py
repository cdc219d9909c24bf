"""Writes the shelf that is shipped: of each size of a study the best student, as a bundle in models/shelf.

    python -m benchmarks.whole.shipped --study prim-long --work FOLDER

Students are chosen on the validation photographs alone. Weights are rounded to half precision: in a compressed zip file
they then take two thirds of the bytes, and a bundle stays what every reader of bundles knows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT
from benchmarks.whole import results_tables as tables
from benchmarks.whole.study import Row, images_of
from models.export import export
from models.ladder import RateLadder
from models.weights import digest, load_ladder
from orchestrator.results.bundles import packed
from orchestrator.spec.messages import Parser

SHELF = ROOT / "models" / "shelf"


def main(argv: Sequence[str] | None = None) -> int:
    parser = _options()
    options = parser.parse_args(argv)
    rows = json.loads((Path(options.results) / f"{options.study}.json").read_text(encoding="utf-8"))["students"]
    SHELF.mkdir(exist_ok=True)
    for student in sorted({row["complexity_class"] for row in rows}):
        row = chosen(rows, student)
        weights = _weights(Path(options.work), row)
        if weights is None:
            parser.error(
                f"--work: {options.work} has no weights of {row['trial_id']} with digest {row['weights_digest']}"
            )
        size = ship(load_ladder(weights), row, options.study, SHELF / f"{student.rpartition('-m')[0]}.zip")
        print(f"{student}: {row['arm']}, seed {row['seed']}, {size:,} bytes", flush=True)
    return 0


def chosen(rows: Sequence[Row], student: str) -> Row:
    """Of the student's best method the seed with the lowest ln J on the validation photographs."""
    own = [row for row in rows if (row["complexity_class"], row["arm"]) == (student, tables.best(rows, student))]
    return min(own, key=lambda row: float(row["validation"][-1]["log_lagrangian_ratio"]))


def ship(ladder: RateLadder, row: Row, study: str, file: Path) -> int:
    """A student as a compressed bundle; its size in bytes. Raises OSError."""
    with torch.no_grad():
        for parameter in ladder.parameters():
            parameter.copy_(parameter.half())
    figures = {
        "study": study,
        "method": tables.titled(row["arm"]).replace("`", ""),
        "images": images_of(row),
        "kodak_bd_rate_vs_teacher_pct": row["bd_rate_pct"],
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = export(ladder, Path(temporary, "bundle"), name=file.stem, figures=figures)
        content = packed(folder, zipfile.ZIP_DEFLATED)
    file.write_bytes(content)
    return len(content)


def _weights(work: Path, row: Row) -> Path | None:
    files = work.glob(f"**/weights/{row['trial_id']}/*.safetensors")
    return next((file for file in files if digest(file) == row["weights_digest"]), None)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, metavar="NAME", help="a result file of benchmarks.whole.study")
    parser.add_argument("--work", required=True, metavar="FOLDER", help="the study's")
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
