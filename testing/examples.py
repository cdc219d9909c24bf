"""The worked examples of docs/extending.md, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

EXTENDING = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def sections() -> dict[str, str]:
    """Heading, without the signs -> text of the page's sections."""
    return dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", EXTENDING.read_text(encoding="utf-8"), re.MULTILINE))


def examples(section: str) -> dict[str, str]:
    """Place -> text of a section's Python and YAML blocks whose first line is a comment that names the place.

    A place is the path of a file that the example creates, or "PATH, WHERE" for what it adds to a file that exists.

    Args:
        section: its heading, without the signs.

    Raises:
        KeyError: there is no such section.
    """
    block = r"^```(?:python|yaml)\n# ([^\n]*)\n(.*?)^```"
    return dict(re.findall(block, sections()[section], re.MULTILINE | re.DOTALL))


def created_files() -> set[str]:
    """The paths of the files that the examples create: they do not exist here."""
    return {place for section in sections() for place in examples(section) if re.fullmatch(r"[\w/]+\.py", place)}
