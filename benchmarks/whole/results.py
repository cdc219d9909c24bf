"""RESULTS.md's tables, its pictures and results.json, from committed files alone.

    python -m benchmarks.whole.results

Each table of RESULTS.md is between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced. Methods
are chosen by ln J on the validation photographs, and then stated by BD-rate on the test set. What has no result file
yet is left out, and its goals are null.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT
from benchmarks.whole import gains, results_drawn
from benchmarks.whole import results_tables as tables
from benchmarks.whole.study import Goals, Row, goal, images_of
from benchmarks.whole.teachers import A, B
from benchmarks.whole.teachers import goals as of_teachers
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store

TEACHERS, PRIM, LONG, LONGEST = "teachers", "prim-small", "prim-long", "prim-longest"
FEDS, DECODERS = "feds-small", "decoders-small"
# study -> its table of methods, and its teacher
STUDIES = {PRIM: ("prim", A), LONG: ("long", A), LONGEST: ("longest", A), FEDS: ("feds", B), DECODERS: ("decoders", A)}
HALF, QUARTER = "hyperprior-n32-m192-z64", "hyperprior-n16-m192-z64"
CUT = "feds-student-n40-m128-z48"
Found = Mapping[str, Any]  # result file -> what it holds


def main(argv: Sequence[str] | None = None) -> int:
    Parser(description=__doc__.partition("\n")[0]).parse_args(argv)
    found = read(Path(RESULTS))
    page = ROOT / "RESULTS.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), made(found)), encoding="utf-8")
    if TEACHERS in found:
        results_drawn.curves(found[TEACHERS]["codecs"])
        if students := _students(found, PRIM):
            results_drawn.front(students, _longest_trained(found), _macs(found, A))
    summary = {
        "made_of": {name: file["machine"]["git_revision"] for name, file in found.items()},
        "best": {name: _best(found[name]["students"]) for name in STUDIES if name in found},
        "goals": goals(found),
    }
    Store(RESULTS).replace("results.json", f"{json.dumps(summary, indent=1, allow_nan=False)}\n".encode())
    return 0


def read(folder: Path) -> dict[str, Any]:
    """The result files that there are."""
    files = {name: folder / f"{name}.json" for name in (TEACHERS, *STUDIES)}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def made(found: Found) -> dict[str, str]:
    """Tables by name, as Markdown."""
    studies = {name: found[name] for name in STUDIES if name in found}
    made = {
        "goals": tables.goals(goals(found), trained_on(found)),
        "gains": tables.gained([study["students"] for name, study in studies.items() if name != DECODERS]),
        "costs": tables.costs(studies),
    }
    if TEACHERS in found:
        made["teachers"] = tables.teachers(found[TEACHERS])
        made |= {
            table: tables.methods(studies[name]["students"], _macs(found, teacher))
            for name, (table, teacher) in STUDIES.items()
            if name in studies
        }
    return made


def filled(page: str, tables: Mapping[str, str]) -> str:
    """A page with those of its tables in place that there are."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables[match[2]]}{match[4]}" if match[2] in tables else match[0]

    return re.sub(r"(<!-- table: ([\w-]+) -->)\n(.*?)(<!-- end -->)", table, page, flags=re.DOTALL)


def goals(found: Found) -> Goals:
    """Of the teachers and of the cuts; null where there is no figure."""

    def pct(rows: Sequence[Row], student: str) -> float | None:
        trained = any(row["complexity_class"] == student for row in rows)
        return gains.bd_rate(rows, student, tables.best(rows, student)).mean if trained else None

    def over(control: str) -> float | None:
        rows = _students(found, PRIM)
        return gains.at_equal_images(rows, HALF, tables.best(rows, HALF), control).mean if rows else None

    longest = _longest_trained(found)
    return {
        **(found[TEACHERS]["goals"] if TEACHERS in found else of_teachers([])),
        "prim_half_pct": goal(pct(longest, HALF), 6.0, "most"),
        "prim_quarter_pct": goal(pct(longest, QUARTER), 29.0, "most"),
        "feds_cut_pct": goal(pct(_students(found, FEDS), CUT), 1.2, "most"),
        "half_better_than_slice_points": goal(over(gains.SLICE), 0.0, "least"),
        "half_better_than_refitted_points": goal(over(gains.REFITTED), 0.0, "least"),
    }


def trained_on(found: Found) -> dict[str, int]:
    """Goal -> images that its student was trained on, of the goals that have a student."""

    longest, equal = _longest_trained(found), _students(found, PRIM)
    students = {
        "prim_half_pct": (longest, HALF),
        "prim_quarter_pct": (longest, QUARTER),
        "feds_cut_pct": (_students(found, FEDS), CUT),
        "half_better_than_slice_points": (equal, HALF),
        "half_better_than_refitted_points": (equal, HALF),
    }
    return {
        name: images_of(row)
        for name, (rows, student) in students.items()
        for row in rows
        if row["complexity_class"] == student
    }


def _students(found: Found, study: str) -> Sequence[Row]:
    """Of a study; empty where it has no result file yet."""
    return found[study]["students"] if study in found else []


def _longest_trained(found: Found) -> Sequence[Row]:
    """Students of PRIM's cut, each size of the longest study that has it."""
    rows: list[Row] = []
    for study in (LONGEST, LONG, PRIM):
        sizes = {row["complexity_class"] for row in rows}
        rows += [row for row in _students(found, study) if row["complexity_class"] not in sizes]
    return rows


def _best(rows: Sequence[Row]) -> dict[str, str]:
    """Student -> its best method."""
    return {name: tables.best(rows, name) for name in sorted({row["complexity_class"] for row in rows})}


def _macs(found: Found, teacher: str) -> float:
    return float(found[TEACHERS]["networks"][teacher]["macs_per_pixel"])


if __name__ == "__main__":
    sys.exit(exit_code(main))
