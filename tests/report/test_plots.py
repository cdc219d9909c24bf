"""The report's still pictures, read back from their SVG: where each mark is, how it is drawn, what stands beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

import pytest

from orchestrator.report.chart import BLUE, GRID, INK, ORANGE, SCALE, Cell, Chart, Grid, Look, Mark, Note, Series
from orchestrator.report.plots import draw

Place = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """A line or the marks of a series: corners or places in points, and the style."""

    places: list[Place]
    style: dict[str, str]


class Drawing:
    """What matplotlib drew: the axes' box as (left, bottom, right, top), lines, marks, the key's marks, and texts.

    A text's letters are paths, and a comment before them says it.
    """

    def __init__(self, svg: str) -> None:
        root = ET.fromstring(svg, parser=ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))
        for element in root.iter():
            if isinstance(element.tag, str):
                element.tag = element.tag.rpartition("}")[2]
        self.title = root.findtext("title")
        groups = {group.get("id", "").rpartition("-")[2]: group for group in root.iter("g")}
        (left, bottom), (right, _), (_, top), *_ = places(groups["patch_2"][0].get("d"))
        self.box = (left, bottom, right, top)
        self.order = [name for name in groups if name.startswith(("line2d", "text"))]
        said = [(name, each.text) for name, group in groups.items() if name.startswith("text") for each in group
                if callable(each.tag)]  # fmt: skip
        self.texts = {(text or "").strip(): name for name, text in said}
        in_key = set(groups["legend_1"].iter("g")) if "legend_1" in groups else set()
        ticks = {tick for name, group in groups.items() if "tick" in name for tick in group.iter("g")}
        kept = [(name, group) for name, group in groups.items() if name.startswith("line2d") and group not in ticks]
        self.lines = [Drawn(places(path.get("d")), style_of(path)) for _, group in kept if group not in in_key
                      for path in group.findall("path") if style_of(path).get("stroke") != GRID]  # fmt: skip
        self.marks, self.key = [
            [drawn for _, group in kept if (group in in_key) is keys and (drawn := marks_of(group)) is not None]
            for keys in (False, True)
        ]
        self.named = groups


def marks_of(group: ET.Element) -> Drawn | None:
    used = list(group.iter("use"))
    if not used:
        return None
    found = [(float(each.get("x", "")), float(each.get("y", ""))) for each in used]
    return Drawn(found, style_of(used[0]))


def places(text: str | None) -> list[Place]:
    values = [float(number) for number in re.findall(r"-?\d+\.?\d*", text or "")]
    return list(zip(values[::2], values[1::2], strict=False))


def style_of(element: ET.Element) -> dict[str, str]:
    styles = dict(part.split(": ") for part in element.get("style", "").split("; ") if part)
    return {name: styles[name] for name in ("fill", "fill-opacity", "stroke", "stroke-width") if name in styles}


FRONT = Series(
    label="on the front",
    look=Look(colour=BLUE, symbol="circle", size=10, outlined=True),
    marks=[Mark(100, -20, "cheap"), Mark(400, -35, "good")],
)
CONTROL = Series(label="a control", look=Look(colour=ORANGE, symbol="square", filled=False), marks=[Mark(250, 0, "c")])
STAIRS = Series(
    label="stairs", look=Look(colour=INK, line="solid", width=1.0, step="right first"), marks=FRONT.marks, listed=False
)
CHART = Chart(
    name="plane",
    title="a <title>",
    x_label="cost",
    y_label="rate",
    series=[STAIRS, CONTROL, FRONT],
    notes=[Note(100, -20, "cheap"), Note(400, -35, "good")],
    x_range=(0, 500),
    y_range=(-50, 50),
)


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return Drawing(draw(CHART))


def on_page(drawing: Drawing, x: float, y: float) -> Place:
    left, bottom, right, top = drawing.box
    return left + x / 500 * (right - left), bottom + (y + 50) / 100 * (top - bottom)


def test_marks_are_at_their_places(drawing: Drawing) -> None:
    control, front = drawing.marks
    for drawn, series in ((control, CONTROL), (front, FRONT)):
        for place, mark in zip(drawn.places, series.marks, strict=True):
            assert place == pytest.approx(on_page(drawing, mark.x, mark.y), abs=0.01)
    (stairs,) = drawing.lines
    corners = [(100, -20), (400, -20), (400, -35)]
    assert stairs.places == [pytest.approx(on_page(drawing, *corner), abs=0.01) for corner in corners]


def test_the_key_shows_the_marks_as_they_are_drawn(drawing: Drawing) -> None:
    """It had marks of its own, which were not those of a control on the front or of what is off the scale."""
    assert [drawn.style for drawn in drawing.key] == [drawn.style for drawn in drawing.marks]
    assert drawing.marks[0].style == {"fill-opacity": "0", "stroke": ORANGE, "stroke-width": "1.2"}
    assert drawing.marks[1].style == {"fill": BLUE, "stroke": INK, "stroke-width": "1.6"}
    assert {"on the front", "a control"} < {*drawing.texts} and "stairs" not in drawing.texts


def test_a_name_lies_over_the_line_on_its_own_ground(drawing: Drawing) -> None:
    """A step line ran through it."""
    order = drawing.order
    last_line = max(order.index(name) for name in order if name.startswith("line2d") and int(name[7:]) > 0
                    and marks_of(drawing.named[name]) is None)  # fmt: skip
    for name in ("cheap", "good"):
        group = drawing.named[drawing.texts[name]]
        assert order.index(drawing.texts[name]) > last_line
        ground = next(style_of(path) for path in group.iter("path"))
        assert ground["fill"] == "#ffffff"


def test_the_picture_has_a_title_and_ids_of_its_own(drawing: Drawing) -> None:
    assert drawing.title == "a <title>"
    text = draw(CHART)
    assert text == draw(CHART)
    ids = re.findall(r' id="([^"]*)"', text)
    assert ids and all(name.startswith("plane-") for name in ids)
    assert "back\\slash" in draw(replace(CHART, title="back\\slash"))


def test_an_empty_chart_is_drawn() -> None:
    drawing = Drawing(draw(replace(CHART, series=[], notes=[], y_range=None)))
    assert (drawing.marks, drawing.lines) == ([], [])


def test_ticks_may_be_given_and_axes_may_be_logarithmic() -> None:
    chart = replace(CHART, x_ticks=[(100, "a hundred"), (400, "four")], x_range=None, log_x=True, y_ticks=())
    texts = {*Drawing(draw(chart)).texts}
    assert {"a hundred", "four"} < texts and "0" not in texts


def test_a_grid_has_a_colour_and_a_text_a_cell_and_a_frame_for_some() -> None:
    cells = [
        Cell(x=0, y=0, value=-1.0, shown="-1.0", text="", framed=True),
        Cell(x=1, y=0, value=900.0, shown="+900.0", text="", framed=False),
        Cell(x=1, y=1, value=None, shown="-", text="", framed=False),
    ]
    grid = Grid(label="the rate", frame="in a frame", cells=cells, ends=(-1.0, 9.0), ticks=[(9.0, "9 or more")])
    names: list[tuple[float, str]] = [(0, "n8"), (1, "n16")]
    chart = replace(
        CHART, series=[], notes=[], grid=grid, x_ticks=names, y_ticks=names, x_range=(-1, 2), y_range=(-1, 2)
    )
    drawn = draw(chart)
    assert {"-1.0", "+900.0", "-", "the rate", "9 or more", "in a frame", "n8", "n16"} <= {*Drawing(drawn).texts}
    assert drawn.count(f"fill: {SCALE[0]}") == drawn.count(f"fill: {SCALE[-1]}") == 1
    assert drawn.count(f"fill: none; stroke: {ORANGE}; stroke-width: 2.4") == 1
    assert draw(replace(chart, grid=replace(grid, cells=cells[2:], ticks=()))).startswith("<svg")
