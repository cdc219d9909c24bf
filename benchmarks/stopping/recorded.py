"""Learning curves of sweeps that were really trained, as one small JSON file.

    python -m benchmarks.stopping.recorded NAME=RUN_FOLDER [NAME=RUN_FOLDER ...] [--out FILE]

Folders under the same name are one recording: the same specification with other seeds. `rules` fits its curves to the
file; `RECORDED` is the one that is committed: the grid of `sweep`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.facts import ROOT

RECORDED = ROOT / "benchmarks" / "stopping" / "recorded_curves.json"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A trial's rungs as they were measured."""

    recording: str
    complexity_class: str
    macs_per_pixel: float
    configuration: str  # what is trained, apart from the seed
    seed: int
    images_seen: tuple[int, ...]
    bd_rate_pct: tuple[float | None, ...]  # None: not valid
    log_lagrangian_ratio: tuple[float, ...]
    seconds: tuple[float, ...]  # since the rung before: training, validation, saving


def load(path: str | Path = RECORDED) -> list[Recorded]:
    """The trials of a file that this module wrote."""
    rows = json.loads(Path(path).read_text())["trials"]
    lists = ("images_seen", "bd_rate_pct", "log_lagrangian_ratio", "seconds")
    return [Recorded(**{name: tuple(row[name]) if name in lists else row[name] for name in row}) for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    rows = [row for each in options.folders for row in _sweep(*each.split("=", 1))]
    rows = [row for row in rows if row["images_seen"]]
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    Path(options.out).write_text(f'{{"trials": [\n  {lines}\n]}}\n')
    print(f"wrote {options.out}: {len(rows)} trials")
    return 0


def _sweep(name: str, folder: str) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in sorted((Path(folder) / "trials").glob("*.json"))]
    return [_sweep_row(name, record) for record in records]


def _sweep_row(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    rungs = list(kept_rungs(record, lambda rung: True))
    return {
        "recording": name,
        **{field: record[field] for field in ("complexity_class", "macs_per_pixel", "seed")},
        "configuration": record["trial_id"].partition("-")[2],
        "images_seen": [rung["images_seen"] for rung in rungs],
        "bd_rate_pct": [None if rung["bd_rate_pct"] is None else round(rung["bd_rate_pct"], 4) for rung in rungs],
        "log_lagrangian_ratio": [round(rung["log_lagrangian_ratio"], 6) for rung in rungs],
        "seconds": [round(rung["seconds"], 2) for rung in rungs],
    }


def kept_rungs(record: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    """Those to keep, with the seconds since the one before: training, validation, saving."""
    spent = 0.0
    for rung in record["rungs"]:
        spent += sum(rung[f"{part}_s"] for part in ("training", "validation", "saving"))
        if keep(rung):
            yield {**rung, "seconds": spent}
            spent = 0.0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=RUN_FOLDER")
    parser.add_argument("--out", default=str(RECORDED), metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
