"""The sweep's report: one HTML file that needs nothing else, made from the files of the run folder alone.

    python -m orchestrator.report runs/quickstart    # --out FILE.html or FILE.svg: elsewhere

Reads spec.yaml, versions.json, trials/*.json, anchor.json and front.json; coded/*.json, account.json and
forecast.json where they exist.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from orchestrator.report import plots
from orchestrator.report.distillation import equal_images, equal_wall_time
from orchestrator.report.run_files import RunFiles, bd_rate_of, read_run
from orchestrator.report.shelf import shelf_section
from orchestrator.report.tables import account_table, front_table, trial_table
from orchestrator.results.format import FormatError
from orchestrator.spec.messages import Parser, SpecError, one_of, shown, without_credentials
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store

REPORT = "report.html"
ENDINGS = (".html", ".svg")  # of --out
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #fff; max-width: 1240px; margin: 0 auto;
  padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 18px; margin: 38px 0 6px; }
p { margin: 6px 0; max-width: 80ch; }
.quiet { color: #5c6475; } .tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; }
.tile { border: 1px solid #dfe3ea; border-radius: 8px; padding: 8px 14px; min-width: 96px; }
.tile b { display: block; font-size: 22px; font-weight: 600; } .tile span { color: #5c6475; font-size: 13px; }
svg { max-width: 100%; height: auto; display: block; margin: 6px 0 14px; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid #e8ebf0; text-align: right; white-space: nowrap; }
th { color: #5c6475; font-weight: 600; border-bottom-color: #c5cbd6; } th.l, td.l { text-align: left; }
tr.front td { background: #eef5ff; } tr.failed td { color: #a3232f; }
.better { color: #12703a; } .worse { color: #a3232f; }
details { margin-top: 24px; }
pre { background: #f6f7f9; border-radius: 8px; padding: 12px; overflow-x: auto; font-size: 12px; }
"""


WALL_TIME = """
The best distilled trial when it had trained for as long as the control had in all, its share of filling the cache and
of refitting included: 100 times the difference of mean ln(J / J of the anchor), about percent of the cost.
"""
DISTILLATION = """
For each student, the trials without distillation (controls) from up to three starts, and those with it, at every rung
that both reached. A control of the same start tells what the losses are worth; the controls of other starts, what the
start is worth. Where all curves of a rung are valid the figures are BD-rates in % and the
difference is in percentage points; elsewhere they are 100 times the mean ln(J / J of the anchor), about percent of the
cost. Lower is better. The best of several trials is favoured by chance; the median is not.
"""


def write_report(run_folder: Store | str | os.PathLike[str]) -> None:
    """Writes report.html into the run folder, atomically.

    Args:
        run_folder: a folder, or a store's URL of one.

    Raises:
        FileNotFoundError: one of the files that every finished sweep has is missing.
        StoreError: the run folder cannot be read or written.
        FormatError: one of them is of another format.
    """
    run = run_folder if isinstance(run_folder, Store) else Store(str(run_folder))
    run.replace(REPORT, render(read_run(run)).encode())


def render(run: RunFiles) -> str:
    """The page, as HTML."""
    sections = [
        f"<h1>Sweep {escape(run.name)}</h1>",
        f'<p class="quiet">{escape(_origin(run))}</p>',
        _tiles(run),
        "<h2>Rate-distortion curves</h2>",
        "<p>From real bitstreams on the validation photographs where not called estimated; "
        f"{run.metric.label} over RGB, averaged over photographs. Every BD-rate here is against the anchor, "
        f"{escape(str(run.anchor.teacher))}.</p>",
        plots.rate_distortion(
            run.anchor_points, _front_curves(run), _best_control(run), _anchor_name(run), f"{run.metric.label}, dB"
        ),
        "<h2>Pareto front: BD-rate against complexity</h2>",
        f"<p>{escape(_scatter_caption(run))}</p>",
        plots.pareto(_dots(run)),
        front_table(run),
        *shelf_section(run),
        "<h2>What distillation was worth</h2>",
        f"<p>{DISTILLATION}</p>",
        "<h3>At equal images seen</h3>",
        equal_images(run),
        "<h3>At equal wall time</h3>",
        f"<p>{WALL_TIME}</p>",
        equal_wall_time(run),
        "<h2>Trials</h2>",
        trial_table(run),
        *([] if run.account is None else ["<h2>Where the time went</h2>", account_table(run.account, run.forecast)]),
        f"<details><summary>Specification</summary><pre>{escape(run.spec)}</pre></details>",
        f"<details><summary>Versions</summary><pre>{escape(run.versions.model_dump_json(indent=1))}</pre></details>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(sections)
    head += f"<title>Sweep {escape(run.name)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _origin(run: RunFiles) -> str:
    libraries = run.versions.libraries
    known = [f"{name} {libraries[name]}" for name in ("torch", "compressai", "deepspeed", "ray") if name in libraries]
    return ", ".join([f"revision {run.versions.git_revision or 'unknown'}", *known])


def _tiles(run: RunFiles) -> str:
    last = [trial.rungs[-1] for trial in run.trials if trial.rungs]
    valid = sum(rung.bd_rate_pct is not None for rung in last)
    failed = sum(trial.broken for trial in run.trials)
    tiles = [
        (len(run.trials), "trials"),
        (sum(trial.status == "stopped" for trial in run.trials), "stopped early"),
        *([(failed, "failed")] if failed else []),
        (len(run.front), "on the front"),
        (f"{100 * valid / len(last):.0f} %" if last else "none", "valid BD-rate at the last rung"),
    ]
    rates = [student.bd_rate_pct for student in run.front if student.bd_rate_pct is not None]
    if rates:
        tiles.append((f"{min(rates):+.1f} %", "best BD-rate"))
    if run.account:
        tiles.append((f"{run.account.wall_s / 60:.1f} min", "wall time"))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{figure}</b><span>{label}</span></div>' for figure, label in tiles)
        + "</div>"
    )


def _front_curves(run: RunFiles) -> list[tuple[str, list[tuple[float, float]]]]:
    ordered = sorted(run.front, key=lambda student: student.macs_per_pixel)
    return [(student.trial_id, run.metric.curve(student.points)) for student in ordered]


def _anchor_name(run: RunFiles) -> str:
    return f"{run.anchor.teacher} (anchor{'' if run.anchor_coded else ', estimated'})"


def _best_control(run: RunFiles) -> tuple[str, list[tuple[float, float]]] | None:
    on_front = {student.trial_id for student in run.front}
    controls = [trial for trial in run.trials if trial.teacher is None and trial.rungs]
    ranked = [(value, trial) for trial in controls if (value := bd_rate_of(run, trial)) is not None]
    if not ranked:
        return None
    _, best = min(ranked, key=lambda entry: entry[0])
    if best.trial_id in on_front:
        return None  # drawn with the front
    coded = run.coded.get(best.trial_id)
    points = coded.points if coded else best.rungs[-1].points
    note = "" if coded else ", estimated"
    return f"{best.trial_id} (best control{note})", run.metric.curve(points)


def _dots(run: RunFiles) -> list[plots.Dot]:
    on_front = {student.trial_id for student in run.front}
    return [
        plots.Dot(
            name=trial.trial_id,
            kmacs_per_pixel=trial.macs_per_pixel / 1000,
            bd_rate_pct=value,
            control=trial.teacher is None,
            stopped=trial.status == "stopped",
            front=trial.trial_id in on_front,
        )
        for trial in run.trials
        if (value := bd_rate_of(run, trial)) is not None
    ]


def _scatter_caption(run: RunFiles) -> str:
    without = sum(bd_rate_of(run, trial) is None for trial in run.trials)
    text = f"Lower and further left is better. {len(run.coded)} trials were coded with real bitstreams, the others are"
    text += " estimated."
    return text + (f" Not shown, for want of a valid BD-rate: {without}." if without else "")


def main(words: Sequence[str] | None = None) -> int:
    """The exit code. 0: written; 2: the run folder cannot be read, or the page not written, and one line says why."""
    parser = Parser(prog="python -m orchestrator.report", description="The report of a sweep.")
    parser.add_argument("run", help="its run folder, or that of a store: s3://bucket/prefix")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page, by default report.html in the run folder; FILE.svg: the drawing of the Pareto front alone",
    )
    given = parser.parse_args(words)
    try:
        if given.out is None:
            write_report(given.run)
        else:
            if given.out.suffix not in ENDINGS:  # another file of the run folder would be written over
                allowed = f"a name that ends in {one_of(ENDINGS)}"
                raise SpecError([f"--out: {shown(str(given.out))} is not allowed: {allowed}"])
            run = read_run(Store(given.run, read_only=True))
            text = plots.pareto(_dots(run)) if given.out.suffix == ".svg" else render(run)
            given.out.write_text(text, encoding="utf-8")
    except (SpecError, FormatError, StoreError, OSError) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
