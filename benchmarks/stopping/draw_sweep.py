"""Draws what the rules of early stopping keep and save: docs/early-stopping.svg, from sweep.json and rules.json.

python -m benchmarks.stopping.draw_sweep
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import rc_context, use
from matplotlib.figure import Figure

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT
from benchmarks.stopping.rules import GOAL_HYPERVOLUME, GOAL_IMAGES
from benchmarks.stopping.sweep import RAYS
from orchestrator.report.chart import BLUE, GRID, ORANGE, QUIET
from orchestrator.spec.messages import Parser

COLOURS = {"stratified": BLUE, "moasha": "#2f8f5b", "asha": ORANGE, RAYS: "#b3312c", "oracle": QUIET}


def main() -> int:
    Parser(description=__doc__.partition("\n")[0]).parse_args()
    use("Agg")
    trained = json.loads(Path(RESULTS, "sweep.json").read_text())
    simulated = json.loads(Path(RESULTS, "rules.json").read_text())["as_recorded"]
    figure = Figure(figsize=(8.8, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in COLOURS.items():
        for seed, rules in trained["replayed"].items():
            label = name if seed == "0" else None
            left.scatter(*_place(rules[name]), color=colour, s=38, alpha=0.75, label=label)
        if name in trained["real"]:
            left.scatter(*_place(trained["real"][name]), facecolor="none", edgecolor=colour, s=150, linewidth=1.5)
        rows = simulated.get(name, {})
        for row, marker in ((rows.get("default", rows), "o"), (rows.get("chosen", rows), "s")):
            if not row:
                continue
            shares = [row[f"{what}_share"] for what in ("images", "hypervolume")]
            x, y = (100 * share["mean"] for share in shares)
            errors = [100 * share["ci95"] for share in shares]
            right.errorbar(x, y, xerr=errors[0], yerr=errors[1], color=colour, marker=marker, capsize=3)
    left.set_title("16 trials, 3 seeds; ring: run for real", fontsize=10)
    right.set_title("64 trials, simulated; square: rungs at 1/16, 1/4, 1", fontsize=10)
    left.set_ylabel("hypervolume, % of the full grid's")
    left.legend(frameon=False, fontsize=9, loc="lower right")
    for axes in (left, right):
        axes.axhline(100 * GOAL_HYPERVOLUME, color=QUIET, linewidth=0.8, linestyle=":")
        axes.axvline(100 * GOAL_IMAGES, color=QUIET, linewidth=0.8, linestyle=":")
        axes.set_xlabel("images trained, % of the full grid's")
        axes.grid(color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.hashsalt": "early-stopping"}):
        figure.savefig(ROOT / "docs" / "early-stopping.svg", metadata={"Date": None})
    return 0


def _place(shares: dict[str, Any]) -> tuple[float, float]:
    return 100 * shares["images"], 100 * shares["hypervolume"]


if __name__ == "__main__":
    sys.exit(exit_code(main))
