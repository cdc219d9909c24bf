"""The report's figures, read back from their SVG: where each mark is, how it is drawn, and what stands beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from orchestrator.report.plots import BLUE, GRID, INK, ORANGE, Dot, pareto, rate_distortion

Place = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A mark of a scatter plot or its key: `place` is its middle and `width` its own, both in points."""

    place: Place
    width: float
    shape: str
    style: dict[str, str]

    @property
    def look(self) -> tuple[float, str, dict[str, str]]:
        return round(self.width, 3), self.shape, self.style


class Drawing:
    """What matplotlib drew: the axes' box as (left, bottom, right, top), marks, lines with their styles, and texts.

    A text's letters are paths, and a comment before them says it.
    """

    def __init__(self, svg: str) -> None:
        root = ET.fromstring(svg, parser=ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))
        for element in root.iter():
            if isinstance(element.tag, str):
                element.tag = element.tag.rpartition("}")[2]
        groups = {group.get("id", "").rpartition("-")[2]: group for group in root.iter("g")}
        self._paths = {f"#{path.get('id')}": path for path in root.iter("path")}
        (left, bottom), (right, _), (_, top), *_ = places(groups["patch_2"][0].get("d"))
        self.box = (left, bottom, right, top)
        self.texts = {
            (group[0].text or "").strip(): places(group[1].get("transform"))[0]
            for name, group in groups.items()
            if name.startswith("text")
        }
        in_key = set(groups["legend_1"].iter("g"))
        self.marks, self.key = [
            [
                self._mark(group)
                for name, group in groups.items()
                if name.startswith("PathCollection") and (group in in_key) is keys and len(group)
            ]
            for keys in (False, True)
        ]
        self.lines = [
            (places(path.get("d")), style_of(path))
            for name, group in groups.items()
            if name.startswith("line2d") and group not in in_key
            for path in group.findall("path")
            if style_of(path)["stroke"] != GRID
        ]

    def _mark(self, group: ET.Element) -> Mark:
        used = group.find(".//use")
        drawn = group.find("path") if used is None else used
        assert drawn is not None
        path = drawn if used is None else self._paths[used.get("{http://www.w3.org/1999/xlink}href", "")]
        corners = places(path.get("d"))
        (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*corners, strict=True))
        place = ((left + right) / 2, (low + high) / 2)
        if used is not None:
            place = (float(used.get("x", "")), float(used.get("y", "")))
        shape = {2: "square", 3: "triangle"}.get(len({round(x, 2) for x, _ in corners}), "circle")
        return Mark(place, right - left, shape, style_of(drawn))


def places(text: str | None) -> list[Place]:
    values = [float(number) for number in re.findall(r"-?\d+\.?\d*", text or "")]
    return list(zip(values[::2], values[1::2], strict=False))  # a text turned by an angle has it behind its place


def style_of(element: ET.Element) -> dict[str, str]:
    styles = dict(part.split(": ") for part in element.get("style", "").split("; "))
    return {name: styles[name] for name in ("fill", "stroke", "stroke-width", "stroke-dasharray") if name in styles}


def dot(name: str, kmacs: float, rate: float, **fields: Any) -> Dot:
    kind = {"control": False, "stopped": False, "front": False} | fields
    return Dot(name=name, kmacs_per_pixel=kmacs, bd_rate_pct=rate, **kind)


# What the key calls each kind of trial, and trials of it; all that matter lie between -35 and 10 %.
DOTS = {
    "on the front": [dot("cheap", 100, -20.0, front=True), dot("good", 400, -35.0, front=True, stopped=True)],
    "finished": [dot("done", 350, -10.0)],
    "stopped early": [dot("ended", 250, 0.0, stopped=True)],
    "control (square)": [dot("plain", 500, 10.0, control=True)],
    "control, stopped": [dot("plain, ended", 450, 5.0, control=True, stopped=True)],
}
FAR = dot("far", 300, 500.0, stopped=True)
RANGE = 10.0 - -35.0
LOW, TOP = -35.0 - 0.12 * RANGE, 10.0 + 0.35 * RANGE


@pytest.fixture(scope="module")
def scatter() -> Drawing:
    return Drawing(pareto([*(each for kind in DOTS.values() for each in kind), FAR]))


def on_page(drawing: Drawing, kmacs: float, rate: float) -> Any:
    """Where a point is drawn; both axes have room beside the trials."""
    left, bottom, right, top = drawing.box
    across, up = (kmacs - (100 - 0.12 * 400)) / (1.24 * 400), (rate - LOW) / (TOP - LOW)
    return pytest.approx((left + across * (right - left), bottom + up * (top - bottom)), abs=0.01)


def test_every_trial_is_at_its_cost_and_bd_rate_and_drawn_as_the_key_says(scatter: Drawing) -> None:
    key = dict(zip([*DOTS, "off the scale"], scatter.key, strict=True))
    assert len(scatter.marks) == 7 and {*key} < {*scatter.texts}
    for kind, dots in DOTS.items():
        for each in dots:
            place = on_page(scatter, each.kmacs_per_pixel, each.bd_rate_pct)
            (mark,) = [mark for mark in scatter.marks if mark.place == place]
            assert mark.look == key[kind].look, each.name
    (far,) = [mark for mark in scatter.marks if mark.shape == "triangle"]
    assert (
        far.place == on_page(scatter, 300, TOP - 0.05 * (10.0 - -35.0))
        and far.look[:2] == key["off the scale"].look[:2]
    )


def test_the_kinds_of_trials_look_as_they_are_meant_to(scatter: Drawing) -> None:
    filled, hollow = {"fill": BLUE}, {"fill": "none", "stroke": BLUE, "stroke-width": "1.1"}
    looks = [
        (90, "circle", {"fill": BLUE, "stroke": INK, "stroke-width": "1.6"}),
        (42, "circle", filled),
        (34, "circle", hollow),
        (42, "square", {"fill": ORANGE}),
        (34, "square", hollow | {"stroke": ORANGE}),
        (34, "triangle", hollow | {"stroke": "#5c6475"}),
    ]
    for mark, (area, shape, style) in zip(scatter.key, looks, strict=True):
        assert (mark.shape, mark.style) == (shape, style) and mark.width == pytest.approx(area**0.5, abs=0.01)


def test_the_front_is_a_staircase_with_its_trials_named_towards_the_middle(scatter: Drawing) -> None:
    ((corners, style),) = scatter.lines
    assert corners == [on_page(scatter, *corner) for corner in ((100, -20.0), (400, -20.0), (400, -35.0))]
    assert style == {"fill": "none", "stroke": BLUE, "stroke-width": "1.2"}
    left, _, right, _ = scatter.box
    cheap, good = ((kmacs - 52) / 496 * (right - left) + left for kmacs in (100, 400))
    assert scatter.texts["cheap"][0] == pytest.approx(cheap + 8, abs=0.5) and scatter.texts["good"][0] < good - 8
    assert {*scatter.texts} & {"done", "ended", "plain", "far"} == set()
    assert {"kMACs per pixel, coding and decoding", "BD-rate against the anchor, %"} < {*scatter.texts}


def test_trials_that_hardly_differ_are_not_drawn_as_far_apart() -> None:
    """The scale has at least 2 %; without a front and finished trials it is that of the stopped ones."""
    drawing = Drawing(pareto([dot("a", 100, 1.0, stopped=True), dot("b", 200, 1.5, stopped=True)]))
    _, bottom, _, top = drawing.box
    low, high = sorted((mark.place[1] for mark in drawing.marks), reverse=True)
    assert [mark.shape for mark in drawing.marks] == ["circle"] * 2 and drawing.lines == []
    assert (low - high) / (bottom - top) == pytest.approx(0.5 / (0.5 + (0.12 + 0.35) * 2.0), abs=1e-4)


def test_a_sweep_without_a_bd_rate_has_a_figure_with_its_key_alone() -> None:
    drawing = Drawing(pareto([]))
    assert (drawing.marks, drawing.lines, len(drawing.key)) == ([], [], 6)


ANCHOR = [(0.1, 25.0), (0.2, 27.0), (0.4, 30.0)]
FRONT = [
    ("small", [(0.3, 29.0), (0.1, 24.0)]),
    ("middle", [(0.2, 26.0), (0.5, 31.0)]),
    ("large", [(0.2, 28.0), (0.6, 33.0)]),
]
CONTROL = ("control", [(0.5, 30.0), (0.2, 25.0)])


def test_curves_are_drawn_from_light_to_dark_over_rising_rates() -> None:
    drawing = Drawing(rate_distortion(ANCHOR, FRONT, CONTROL, "the anchor", "MS-SSIM, dB"))
    left, bottom, right, top = drawing.box
    share = 1.1  # each axis has 5 % of room at both ends

    def placed(curve: list[Place]) -> list[Any]:
        across = [(bpp - (0.1 - 0.05 * 0.5)) / (share * 0.5) for bpp, _ in sorted(curve)]
        up = [(quality - (24.0 - 0.05 * 9)) / (share * 9) for _, quality in sorted(curve)]
        return [
            pytest.approx((left + x * (right - left), bottom + y * (top - bottom)), abs=0.01)
            for x, y in zip(across, up, strict=True)
        ]

    curves = [corners for corners, _ in drawing.lines]
    assert curves == [placed(curve) for curve in (ANCHOR, *(points for _, points in FRONT), CONTROL[1])]
    styles = [style for _, style in drawing.lines]
    colours = [to_hex(colormaps["viridis_r"](share)) for share in (0.2, 0.2 + 0.75 / 2, 0.95)]
    assert styles[0] == {"fill": "none", "stroke": INK, "stroke-width": "1.6", "stroke-dasharray": "8,4.8"}
    assert styles[1:4] == [{"fill": "none", "stroke": colour, "stroke-width": "1.8"} for colour in colours]
    assert styles[4]["stroke"] == ORANGE and "stroke-dasharray" in styles[4]
    assert {"bits per pixel", "MS-SSIM, dB", "the anchor", "small", "middle", "large", "control"} < {*drawing.texts}


def test_curves_of_one_student_without_a_control() -> None:
    drawing = Drawing(rate_distortion(ANCHOR, FRONT[:1], None, "the anchor"))
    assert [style["stroke"] for _, style in drawing.lines] == [INK, to_hex(colormaps["viridis_r"](0.2))]
    assert "PSNR, dB" in drawing.texts and "control" not in drawing.texts
