"""The files, modules and tests that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testing.examples import created_files, examples, sections

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/*.py")}
TESTS = {
    name
    for path in PYTHON
    if path.startswith("tests/")
    for name in re.findall(r"^def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_files_modules_and_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = [name for name in re.findall(r"`([\w/]+\.py)`", text) if "NAME" not in name]
    files += [
        f"{name.replace('.', '/')}.py" for name in re.findall(r"python -m ((?:benchmarks|models|tests)[\w.]+\w)", text)
    ]
    existing = [f"/{path}" for path in PYTHON | created_files()]
    missing = [name for name in files if not any(path.endswith(f"/{name}") for path in existing)]
    missing += [name for name in re.findall(r"`(test_\w+)`", text) if name not in TESTS]
    assert missing == []


def test_the_examples_create_new_files_and_add_to_files_that_exist() -> None:
    added = {place.partition(", ")[0] for section in sections() for place in examples(section) if ".py, " in place}
    assert created_files() and not created_files() & PYTHON
    assert added and added <= PYTHON
