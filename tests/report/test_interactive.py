"""What the page's script gets to draw."""

import hashlib
import json

from plotly.offline import get_plotlyjs_version

from orchestrator.report.chart import INK, Chart, Look, Mark, Note, Series
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


def test_the_library_is_the_published_one_and_of_the_packages_version() -> None:
    content = asset(LIBRARY)
    assert hashlib.sha256(content.encode()).hexdigest() == LIBRARY_SHA256
    assert f"plotly.js (basic - minified) v{get_plotlyjs_version()}" in content[:200]
    assert "</script" not in content and "</script" not in asset("report.js")
    assert "MIT License" in asset("plotly-LICENSE")
