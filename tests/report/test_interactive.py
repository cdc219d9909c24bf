"""What the page's script gets to draw."""

import hashlib
import json
from dataclasses import replace

from plotly.offline import get_plotlyjs_version

from orchestrator.report.chart import DARK, INK, ORANGE, PALE, QUIET, SCALE, Cell, Chart, Grid, Look, Mark, Note, Series
from orchestrator.report.interactive import LIBRARY, LIBRARY_SHA256, asset, figure_json

ODD = "a</script><b>&'\""
CHART = Chart(
    name="c",
    title="t",
    x_label="<i>",
    y_label="y",
    series=[
        Series(
            label=ODD,
            look=Look(colour="#123456", symbol="down", filled=False, line="dot", step="right last"),
            marks=[Mark(1.0, 2.0, f"{ODD}\nsecond")],
        ),
        Series(label="line", look=Look(colour=INK, line="solid"), marks=[Mark(0.0, 0.0, "")], listed=False),
    ],
    notes=[Note(1.0, 2.0, ODD)],
    x_ticks=[(1.0, "one\n<")],
    y_range=(0.0, 4.0),
)


def test_names_are_texts_and_nothing_ends_the_script() -> None:
    text = figure_json(CHART)
    assert "<" not in text
    figure = json.loads(text)
    first, line = figure["data"]
    escaped = "a&lt;/script&gt;&lt;b&gt;&amp;'\""
    assert first["text"] == [f"<b>{escaped}</b><br>second"] and first["name"] == escaped
    assert figure["layout"]["annotations"][0]["text"] == escaped
    assert figure["layout"]["xaxis"]["title"]["text"] == "&lt;i&gt;"
    assert figure["layout"]["xaxis"]["ticktext"] == ["one<br>&lt;"]
    assert (line["hoverinfo"], line["showlegend"]) == ("skip", False)


def test_a_series_is_drawn_as_it_is_described() -> None:
    first, line = json.loads(figure_json(CHART))["data"]
    assert (first["mode"], first["marker"]["symbol"]) == ("lines+markers", "triangle-down-open")
    assert (first["line"]["dash"], first["line"]["shape"], line["line"]["shape"]) == ("dot", "vh", "linear")
    assert (line["mode"], first["marker"]["color"]) == ("lines", "#123456")
    assert (first["x"], first["y"]) == ([1.0], [2.0])


def test_views_have_other_places_for_the_same_marks() -> None:
    other = replace(CHART, title="u", x_label="z", x_ticks=None, notes=[], series=[
        replace(CHART.series[0], marks=[Mark(7.0, 2.0, "")]), replace(CHART.series[1], marks=[])])  # fmt: skip
    text = figure_json(CHART, other)
    assert "<" not in text
    figure = json.loads(text)
    first, second = figure["views"]
    assert figure["data"] == json.loads(figure_json(CHART))["data"] and first["layout"] == figure["layout"]
    assert (first["title"], first["x"], second["title"], second["x"]) == ("t", [[1.0], [0.0]], "u", [[7.0], []])
    assert second["layout"]["xaxis"]["title"]["text"] == "z" and "annotations" not in second["layout"]
    assert "views" not in json.loads(figure_json(CHART))


CELLS = [
    Cell(x=0, y=0, value=2.0, shown="+2", text="best\nof all", framed=True),
    Cell(x=1, y=0, value=40.0, shown="+40", text=ODD, framed=False),
    Cell(x=1, y=1, value=None, shown="-", text="unknown", framed=False),
]
GRID = Grid(label="rate", frame="a frame", cells=CELLS, ends=(2.0, 10.0), ticks=[(2.0, "+2"), (10.0, "+10 or more")])


def test_a_grid_is_of_cells_that_are_coloured_named_and_framed() -> None:
    figure = json.loads(figure_json(replace(CHART, grid=GRID, series=[], notes=[], y_ticks=[(0, "n8\n1.0")])))
    valued, others, frames = figure["data"]
    assert (valued["x"], valued["base"], valued["y"], valued["width"]) == ([0, 1], [-0.46, -0.46], [0.92, 0.92], 0.96)
    assert valued["text"] == ["+2", "+40"] and valued["hovertext"][0] == "<b>best</b><br>of all"
    assert valued["insidetextfont"]["color"] == [PALE, DARK] and others["insidetextfont"]["color"] == [QUIET]
    marker = valued["marker"]
    assert (marker["color"], marker["cmin"], marker["cmax"]) == ([2.0, 40.0], 2.0, 10.0)
    assert [colour for _, colour in marker["colorscale"]] == [*SCALE]
    assert marker["colorbar"]["ticktext"] == ["+2", "+10 or more"] and marker["colorbar"]["title"]["text"] == "rate"
    assert (others["x"], others["base"], others["hovertext"]) == ([1], [0.54], ["<b>unknown</b>"])
    assert (frames["x"], frames["name"], frames["hoverinfo"]) == ([0], "a frame", "skip")
    assert frames["marker"]["line"]["color"] == ORANGE
    assert figure["layout"]["yaxis"]["ticktext"] == ["n8<br>1.0"] and not figure["layout"]["yaxis"]["showgrid"]
    assert [trace["showlegend"] for trace in (valued, others)] == [False, False]


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG defines it."""

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_letters_in_cells_are_legible_and_no_colours_that_change_at_night() -> None:
    for place, colour in enumerate(SCALE):
        value = 2.0 + 8.0 * place / (len(SCALE) - 1)
        assert contrast(colour, GRID.letters(replace(CELLS[0], value=value))) > 4
    night = asset("report.js").partition("NIGHT = {")[2].partition("}")[0]
    assert INK in night and not any(colour in night for colour in (*SCALE, PALE, DARK))


def test_the_library_is_the_published_one_and_of_the_packages_version() -> None:
    content = asset(LIBRARY)
    assert hashlib.sha256(content.encode()).hexdigest() == LIBRARY_SHA256
    assert f"plotly.js (basic - minified) v{get_plotlyjs_version()}" in content[:200]
    assert "</script" not in content and "</script" not in asset("report.js")
    assert "MIT License" in asset("plotly-LICENSE")
