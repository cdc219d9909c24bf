"""Learning curves of sweeps and benchmarks that were really trained, as one small JSON file.

    python -m benchmarks.recorded NAME=RUN_FOLDER [NAME=RUN_FOLDER ...]
        [--crops-per-image NAME=RUNS.jsonl=ANCHOR.json] [--out FILE]

A run folder is a sweep's; runs of `benchmarks.crops_per_image` are scored against their anchor. Folders under the same
name are one recording: the same specification with other seeds. Only rungs with a valid BD-rate are kept. `rules`
fits its curves to the file; `RECORDED` is the one that is committed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.facts import ROOT
from orchestrator.sweep.score import Anchor

RECORDED = ROOT / "benchmarks" / "recorded_curves.json"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A trial's rungs as they were measured; where it was stopped early they end before the budget."""

    recording: str
    budget: int  # images seen at the last rung, where the learning rate's cosine ends
    complexity_class: str
    macs_per_pixel: float
    configuration: str  # what is trained, apart from the seed
    seed: int
    images_seen: tuple[int, ...]
    bd_rate_pct: tuple[float, ...]
    seconds: tuple[float, ...]  # of each segment: training, validation, saving; none where they were not recorded


def load(path: str | Path = RECORDED) -> list[Recorded]:
    """The trials of a file that this module wrote."""
    rows = json.loads(Path(path).read_text())["trials"]
    lists = ("images_seen", "bd_rate_pct", "seconds")
    return [Recorded(**{name: tuple(row[name]) if name in lists else row[name] for name in row}) for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    rows = [row for each in options.folders for row in _sweep(*each.split("=", 1))]
    for each in options.crops_per_image:
        rows += _crops_per_image(*each.split("=", 2), options.crops_per_image_class, rows)
    rows = [row for row in rows if row["images_seen"]]
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    Path(options.out).write_text(f'{{"trials": [\n  {lines}\n]}}\n')
    print(f"wrote {options.out}: {len(rows)} trials")
    return 0


def _sweep(name: str, folder: str) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in sorted((Path(folder) / "trials").glob("*.json"))]
    last = max(rung["images_seen"] for record in records for rung in record["rungs"])
    return [_sweep_row(name, last, record) for record in records]


def _sweep_row(name: str, budget: int, record: Mapping[str, Any]) -> dict[str, Any]:
    rungs = [rung for rung in record["rungs"] if rung["bd_rate_pct"] is not None]
    seconds = [sum(rung[f"{part}_s"] for part in ("training", "validation", "saving")) for rung in rungs]
    return {
        "recording": name,
        "budget": budget,
        **{field: record[field] for field in ("complexity_class", "macs_per_pixel", "seed")},
        "configuration": record["trial_id"].partition("-")[2],
        "images_seen": [rung["images_seen"] for rung in rungs],
        "bd_rate_pct": [round(rung["bd_rate_pct"], 4) for rung in rungs],
        "seconds": [round(each, 2) for each in seconds],
    }


def _crops_per_image(
    name: str, runs: str, anchor: str, complexity_class: str, sweeps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    fields = json.loads(Path(anchor).read_text())
    fields = {field: fields[field] for field in Anchor.__dataclass_fields__ if field in fields}
    against = Anchor(**fields)  # not from_json: an anchor from before MS-SSIM has no distortion in its digest
    macs = next(row["macs_per_pixel"] for row in sweeps if row["complexity_class"] == complexity_class)
    rows = []
    for line in Path(runs).read_text().splitlines():
        run = json.loads(line)
        pct = [against.score(rung["points"])["bd_rate_pct"] for rung in run["rungs"]]
        rows.append(
            {
                "recording": name,
                "budget": run["rungs"][-1]["images"],
                "complexity_class": complexity_class,
                "macs_per_pixel": macs,
                "seed": run["seed"],
                "configuration": run["arm"],
                "images_seen": [rung["images"] for rung in run["rungs"]],
                "bd_rate_pct": [round(value, 4) for value in pct],
                "seconds": [],
            }
        )
    return rows


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=RUN_FOLDER")
    parser.add_argument("--crops-per-image", nargs="*", default=[], metavar="NAME=RUNS.jsonl=ANCHOR.json")
    parser.add_argument("--crops-per-image-class", default="hyperprior-n32-m96", metavar="CLASS")
    parser.add_argument("--out", default=str(RECORDED), metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
