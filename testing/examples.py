"""The worked examples of docs/extending.md, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

EXTENDING = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def examples(section: str) -> dict[str, str]:
    """Place -> code of a section's Python blocks whose first line is a comment that says where the code belongs.

    Args:
        section: its heading, without the signs.

    Raises:
        KeyError: there is no such section.
    """
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", EXTENDING.read_text(encoding="utf-8"), re.MULTILINE))
    return dict(re.findall(r"^```python\n# ([^\n]*)\n(.*?)^```", sections[section], re.MULTILINE | re.DOTALL))
