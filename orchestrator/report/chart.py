"""What a figure of the report shows, whoever draws it: the page's script (interactive.py) or matplotlib (plots.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

INK, QUIET, GRID = "#1f2430", "#5c6475", "#e3e7ee"
BLUE, ORANGE = "#2f74d0", "#d9730d"
# Told apart, also by most who see colours otherwise, on white and on a dark page.
COLOURS = ("#2f74d0", "#12937c", "#9a5bd2", "#cf4a7d", "#6a9322", "#1b97b8", "#b58a16", "#7d8597")

# A grid's, from its best value to its worst: read in grey as well, and next to white and to a dark page.
# Letters on its darker part, and those on the rest, have a contrast of 4 at least; a dark page changes none of these.
SCALE = ("#0b3c7f", "#3f7fce", "#9cc0ea", "#e9f0f9")
PALE, DARK, DARKER_PART = "#f8fafd", "#10151d", 0.31

CELL_WIDTH, CELL_HEIGHT = 0.96, 0.92  # of a grid, whose places are 1 by 1

Symbol = Literal["circle", "square", "up", "down", "star"]
Stroke = Literal["solid", "dash", "dot"]
Step = Literal["right first", "right last"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a series is drawn: marks, a line, or both."""

    colour: str
    symbol: Symbol | None = None
    filled: bool = True
    size: float = 7.0  # points across
    outlined: bool = False
    outline: tuple[str, float] = (INK, 1.6)  # colour and width
    line: Stroke | None = None
    width: float = 1.8  # of the line, points
    step: Step | None = None  # the line goes right, then up or down; or first up or down
    opacity: float = 1.0


@dataclass(frozen=True)
class Mark:
    """A place in a chart, and what it says when it is pointed at: lines, the first one is its name."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """Marks that look alike."""

    label: str  # in the key
    look: Look
    marks: Sequence[Mark]
    listed: bool = True  # in the key; of several with one label, one is


@dataclass(frozen=True)
class Note:
    """A name that stands beside a mark."""

    x: float
    y: float
    text: str
    line: int = 0  # so many lines lower, as other names stand there


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A field of a grid, around a place of whole numbers."""

    x: int
    y: int
    value: float | None  # its colour; None: it has none
    shown: str  # inside it, where there is room
    text: str  # as a mark's
    framed: bool


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Fields whose colours are values; the lowest is the best."""

    label: str  # what the values are
    frame: str  # what a framed field is, in the key
    cells: Sequence[Cell]
    ends: tuple[float, float]  # values that have the first and the last colour: those beyond have them as well
    ticks: Sequence[tuple[float, str]]  # values that are named beside the colours

    def letters(self, cell: Cell) -> str:
        """The colour of what a cell shows."""
        if cell.value is None:
            return QUIET
        low, high = self.ends
        return PALE if (cell.value - low) / (high - low) < DARKER_PART else DARK


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure."""

    name: str  # on the page, its own
    title: str  # what it shows, for who does not see it
    view: str = ""  # what a reader chooses it by, where there are several of one figure
    x_label: str
    y_label: str
    series: Sequence[Series]
    grid: Grid | None = None  # below the series
    notes: Sequence[Note] = ()
    x_ticks: Sequence[tuple[float, str]] | None = None  # None: as the drawer likes
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    y_ticks: Sequence[tuple[float, str]] | None = None
    log_x: bool = False
