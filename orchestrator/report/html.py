"""Tables as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Judged:
    """A difference that is better below 0, and is coloured so."""

    value: float


def _cell(value: object, tag: str, left: bool) -> str:
    kind, text = (["l"] if left else []), escape(str(value))
    if isinstance(value, Judged):
        kind.append("better" if value.value < 0 else "worse")
        text = f"{value.value:+.2f}"
    names = f' class="{" ".join(kind)}"' if kind else ""
    return f"<{tag}{names}>{text}</{tag}>"


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int, classes: Sequence[str] | None = None
) -> str:
    """The first `left` columns are aligned left; `classes` are the rows' CSS classes."""
    rows = list(rows)
    names = classes if classes is not None else [""] * len(rows)
    top = "".join(_cell(value, "th", place < left) for place, value in enumerate(head))
    body = "".join(
        f'<tr class="{escape(name)}">'
        + "".join(_cell(value, "td", place < left) for place, value in enumerate(row))
        + "</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
