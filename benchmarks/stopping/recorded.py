"""Learning curves of sweeps that were really trained, as one small JSON file.

    python -m benchmarks.stopping.recorded NAME=RUN_FOLDER [NAME=RUN_FOLDER ...] [--out FILE]

Folders under the same name are one recording: the same specification with other seeds. `rules` fits its curves to the
file; `RECORDED` is the one that is committed: the grid of `sweep`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.common.command import exit_code
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import Rung, TrialRecord

RECORDED = Path(__file__).with_name("recorded_curves.json")


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
    return TypeAdapter(list[Recorded]).validate_python(rows)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    rows = [row for named in options.folders for row in _sweep(*named.split("=", 1))]
    rows = [row for row in rows if row["images_seen"]]
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    Path(options.out).write_text(f'{{"trials": [\n  {lines}\n]}}\n')
    print(f"wrote {options.out}: {len(rows)} trials")
    return 0


def _sweep(name: str, folder: str) -> list[dict[str, Any]]:
    return [_sweep_row(name, record) for record in read_trials(Store(folder))]


def _sweep_row(name: str, record: TrialRecord) -> dict[str, Any]:
    kept = list(kept_rungs(record, lambda rung: True))
    rates = [rung.bd_rate_pct for rung, _ in kept]
    return {
        "recording": name,
        **{field: getattr(record, field) for field in ("complexity_class", "macs_per_pixel", "seed")},
        "configuration": record.trial_id.partition("-")[2],
        "images_seen": [rung.images_seen for rung, _ in kept],
        "bd_rate_pct": [None if rate is None else round(rate, 4) for rate in rates],
        "log_lagrangian_ratio": [round(rung.log_lagrangian_ratio, 6) for rung, _ in kept],
        "seconds": [round(seconds, 2) for _, seconds in kept],
    }


def kept_rungs(record: TrialRecord, keep: Callable[[Rung], bool]) -> Iterator[tuple[Rung, float]]:
    """Those to keep, each with the seconds since the one before: training, validation, saving."""
    spent = 0.0
    for rung in record.rungs:
        spent += rung.training_s + rung.validation_s + rung.saving_s
        if keep(rung):
            yield rung, spent
            spent = 0.0


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=RUN_FOLDER")
    parser.add_argument("--out", default=str(RECORDED), metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
