"""Tables as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Judged:
    """A difference that is better below 0, and is coloured so."""

    value: float


@dataclass(frozen=True)
class Link:
    """A text that leads somewhere; nowhere: the text alone."""

    text: str
    to: str | None


@dataclass(frozen=True)
class Long:
    """A text that may be broken into lines."""

    text: str


def _cell(value: object, tag: str, left: bool, scope: str = "") -> str:
    kind, text = (["l"] if left else []), escape(str(value))
    if isinstance(value, Judged):
        kind.append("better" if value.value < 0 else "worse")
        text = f"{value.value:+.2f}"
    elif isinstance(value, Link):
        text = escape(value.text)
        text = text if value.to is None else f'<a href="{escape(value.to)}">{text}</a>'
    elif isinstance(value, Long):
        kind.append("long")
        text = escape(value.text)
    names = f' class="{" ".join(kind)}"' if kind else ""
    return f"<{tag}{names}{scope}>{text}</{tag}>"


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    left: int,
    what: str,
    classes: Sequence[str] | None = None,
) -> str:
    """A table that scrolls by itself where it is too wide, and its first column names each row.

    Args:
        head: the columns' names.
        rows: their cells; `Judged`, `Link` and `Long` ones are written as such.
        left: so many first columns are aligned left.
        what: the table is about, for who does not see it.
        classes: the rows' CSS classes.
    """
    rows = list(rows)
    names = classes if classes is not None else [""] * len(rows)
    top = "".join(_cell(value, "th", place < left, ' scope="col"') for place, value in enumerate(head))
    body = "".join(
        f'<tr class="{escape(name)}">'
        + "".join(
            _cell(value, "td", place < left) if place else _cell(value, "th", place < left, ' scope="row"')
            for place, value in enumerate(row)
        )
        + "</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    region = f'<div class="scroll" role="region" aria-label="{escape(what)}" tabindex="0">'
    return f"{region}<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
