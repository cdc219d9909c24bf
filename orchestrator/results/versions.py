"""versions.json: what a sweep was begun with (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.results.format import ResultFile

VERSIONS = "versions.json"


class Versions(ResultFile):
    """Of the process that began the sweep."""

    format: Literal[1] = 1
    python: str
    platform: str
    git_revision: str | None  # of the project; None outside a repository, as after `ray job submit`
    libraries: dict[str, str]
