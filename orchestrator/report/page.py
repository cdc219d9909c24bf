"""A sweep's report: one HTML file that needs nothing else, made from the files of the run folder alone.

    python -m orchestrator.report runs/quickstart    # --out FILE.html or FILE.svg: elsewhere

Reads spec.yaml, versions.json, trials/*.json and anchor.json, which are there from the first rung on; and what there is
of front.json, coded/*.json, pictures.json, mlflow.json, shelf.json, interchange.json, account.json and forecast.json.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path

from orchestrator.report import curves, learning, plane, plots
from orchestrator.report.chart import Chart
from orchestrator.report.costs import hypervolume_in_words
from orchestrator.report.distillation import equal_images, equal_wall_time
from orchestrator.report.interactive import LIBRARY, asset, figure_json
from orchestrator.report.photographs import photographs_section
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.report.shelf import shelf_section
from orchestrator.report.tables import account_table, front_table, trial_table
from orchestrator.report.words import answer
from orchestrator.results.format import FormatError
from orchestrator.results.mlflow_runs import LOCAL
from orchestrator.spec.messages import Parser, SpecError, one_of, shown, without_credentials
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store

REPORT = "report.html"
ENDINGS = (".html", ".svg")  # of --out
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
NOT_OVER = """
The sweep is not over: this page is written again after every rung, from what is known by then.
"""
AGAIN = '<label class="script-only"><input type="checkbox" id="again" checked> load this page again every 30 s</label>'
NO_STILL = "<noscript>The chart needs a script while the sweep runs; all of its figures are in the tables.</noscript>"
LEARNING = """
The mean over lambdas of ln(J / J of the anchor) with J = bpp + lambda D, times 100: about percent of the cost. Curves
without a valid BD-rate have it, too. Hollow marks: stopped early. A stopped trial far above the others is beyond the
upper edge (a double click shows all).
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


def write_report(run_folder: Store | str | os.PathLike[str], *, stills: bool = True) -> None:
    """Writes report.html into the run folder, atomically.

    Args:
        run_folder: a folder, or a store's URL of one.
        stills: as `render`.

    Raises:
        FileNotFoundError: one of the files that every sweep has from its first rung on is missing.
        StoreError: the run folder cannot be read or written.
        FormatError: one of them is of another format.
    """
    run = run_folder if isinstance(run_folder, Store) else Store(str(run_folder))
    run.replace(REPORT, render(read_run(run), stills=stills).encode())


def render(run: RunFiles, *, stills: bool = True) -> str:
    """The page, as HTML.

    Args:
        run: the run folder's files.
        stills: with the charts as still pictures, too, which take most of the time.
    """
    figure = partial(_figure, stills=stills)
    sections = [
        f"<h1>Sweep {escape(run.name)}</h1>",
        f'<p class="quiet">{escape(_origin(run))}</p>',
        *_state(run),
        answer(run),
        _tiles(run),
        "<h2>Rate-distortion curves</h2>",
        "<p>From real bitstreams on the validation photographs where not called estimated; "
        f"{run.metric.label} over RGB, averaged over photographs. Every BD-rate here is against the anchor, "
        f"{escape(str(run.anchor.teacher))}.</p>",
        figure(curves.rate_distortion(run)),
        "<h2>Pareto front: BD-rate against complexity</h2>",
        f"<p>{escape(plane.caption(run))}</p>",
        figure(*plane.views(run)),
        f"<p>{escape(hypervolume_in_words(run))}</p>" if run.front else "",
        _without_a_place(run),
        *([front_table(run)] if run.has_front else []),
        *shelf_section(run, figure),
        "<h2>What distillation was worth</h2>",
        f"<p>{DISTILLATION}</p>",
        "<h3>At equal images seen</h3>",
        equal_images(run),
        "<h3>At equal wall time</h3>",
        f"<p>{WALL_TIME}</p>",
        equal_wall_time(run),
        *_learning(run, figure),
        *photographs_section(run),
        "<h2>Trials</h2>",
        _mlflow(run),
        trial_table(run),
        *([] if run.account is None else ["<h2>Where the time went</h2>", account_table(run.account, run.forecast)]),
        f"<details><summary>Specification</summary><pre>{escape(run.spec)}</pre></details>",
        f"<details><summary>Versions</summary><pre>{escape(run.versions.model_dump_json(indent=1))}</pre></details>",
    ]
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>Sweep {escape(run.name)}</title><style>{asset('report.css')}</style>"
    scripts = "".join(f"<script>{asset(name)}</script>" for name in (LIBRARY, "report.js"))
    body = "\n".join(sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n{scripts}</body></html>\n'


def _figure(*views: Chart, stills: bool) -> str:
    """A chart as a still picture, for paper and where no script runs, and as what the script draws in its place.

    Args:
        views: of one figure, the first one is shown at first and on paper. Series have the same marks in all.
        stills: as of `render`.
    """
    chart, title = views[0], escape(views[0].title)
    live = f'<div class="live" role="img" aria-roledescription="chart" aria-label="{title}" tabindex="0"></div>'
    reading = '<p class="reading" aria-live="polite"></p>'
    data = f'<script type="application/json">{figure_json(*views)}</script>'
    still = f'<div class="still">{plots.draw(chart)}</div>' if stills else NO_STILL
    return f'<figure class="chart" id="chart-{chart.name}">{_choice(views)}{live}{reading}{still}{data}</figure>'


def _choice(views: Sequence[Chart]) -> str:
    if len(views) == 1:
        return ""
    options = "".join(f"<option>{escape(view.view)}</option>" for view in views)
    return f'<label class="over script-only">over <select class="view" autocomplete="off">{options}</select></label>'


def _origin(run: RunFiles) -> str:
    libraries = run.versions.libraries
    known = [f"{name} {libraries[name]}" for name in ("torch", "compressai", "deepspeed", "ray") if name in libraries]
    return ", ".join([f"revision {run.versions.git_revision or 'unknown'}", *known])


def _state(run: RunFiles) -> list[str]:
    """How far a sweep is that is not over."""
    if not run.running:
        return []
    ended = sum(trial.ended for trial in run.trials)
    of = f" of {run.planned}" if run.planned is not None else ""
    last = (
        "no rung was reached yet"
        if run.last_rung is None
        else f"the last rung was reached at {run.last_rung:%F %T} UTC"
    )
    return [f'<p class="state">{NOT_OVER} {ended}{of} trials have ended; {last}. {AGAIN}</p>']


def _tiles(run: RunFiles) -> str:
    last = [trial.rungs[-1] for trial in run.trials if trial.rungs]
    valid = sum(rung.bd_rate_pct is not None for rung in last)
    failed = sum(trial.broken for trial in run.trials)
    tiles = [
        (len(run.trials), "trials"),
        (sum(trial.status == "stopped" for trial in run.trials), "stopped early"),
        *([(failed, "failed")] if failed else []),
        (len(run.front), "on the front"),
        (f"{valid} of {len(last)}" if last else "none", "valid BD-rates at the last rung, estimated"),
    ]
    if run.coded:
        valid = sum(student.bd_rate_pct is not None for student in run.coded.values())
        tiles.append((f"{valid} of {len(run.coded)}", "valid BD-rates, coded"))
    rates = [student.bd_rate_pct for student in run.front if student.bd_rate_pct is not None]
    if rates:
        tiles.append((f"{min(rates):+.1f} %", "best BD-rate, coded"))
    if run.account:
        tiles.append((f"{run.account.wall_s / 60:.1f} min", "wall time"))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{figure}</b><span>{label}</span></div>' for figure, label in tiles)
        + "</div>"
    )


def _without_a_place(run: RunFiles) -> str:
    """Every trial without a valid BD-rate, by its name."""
    found = plane.without_a_place(run)
    if not found:
        return ""
    rows = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in found)
    return f"<p>Without a valid BD-rate:</p><ul>{rows}</ul>"


def _learning(run: RunFiles, figure: Callable[[Chart], str]) -> list[str]:
    if not any(trial.rungs for trial in run.trials):
        return []
    found = ["<h2>How the trials learned</h2>", f"<p>{LEARNING}</p>", figure(learning.learning(run))]
    found += ["<h3>Who went on</h3>", figure(learning.survival(run))]
    drawn = learning.drawn(run)
    if drawn is not None:
        found += ["<h3>What the search drew</h3>", figure(drawn)]
    return found


def _mlflow(run: RunFiles) -> str:
    """Where the trials' links lead."""
    if run.mlflow is None:
        return ""
    where = f"Names lead to the trials' runs in MLflow ({run.mlflow.tracking_uri}, model {run.mlflow.model})"
    if not run.mlflow.served:
        where += f", once it is served at {LOCAL}: mlflow ui --backend-store-uri {run.mlflow.tracking_uri}"
    return f'<p class="quiet">{escape(where)}.</p>'


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
            text = plots.draw(plane.views(run)[0]) if given.out.suffix == ".svg" else render(run)
            given.out.write_text(text, encoding="utf-8")
    except (SpecError, FormatError, StoreError, OSError) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
