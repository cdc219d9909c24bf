"""How the tree looks: no circles, short files and functions, typed models; and the measure sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.house import House, main, measure

ROOT = Path(__file__).resolve().parents[1]

# Mappings of anything that stay in signatures: place -> why no model fits. At most LOOSE in all.
LOOSE = 10
REASONS = {"orchestrator/store/s3.py _while_away": "botocore hands over its own request, as a dict of anything"}


@pytest.fixture(scope="module")
def house() -> House:
    return measure(ROOT)


def test_rooms_import_downwards_alone(house: House) -> None:
    assert house.circles == () and house.up == ()


def test_files_are_short(house: House) -> None:
    assert house.long_files == {}


def test_functions_are_short(house: House) -> None:
    assert house.long_functions == {}


def test_mappings_of_anything_are_few_and_have_a_reason(house: House) -> None:
    assert {place: times for place, times in house.loose.items() if place not in REASONS} == {}
    assert sorted(REASONS.keys() - house.loose.keys()) == []  # none that is gone
    assert sum(house.loose.values()) <= LOOSE


@pytest.fixture
def crooked(tmp_path: Path) -> Path:
    """A tree with one example of everything that is not wanted."""
    lines = {
        "orchestrator/spec.py": "from orchestrator.distill.loop import Loop",
        "orchestrator/distill/loop.py": "def late():\n    from orchestrator import spec\n    import orchestrator.plan",
        "orchestrator/plan.py": "\n" * 301,
        "models/ladder.py": "class Ladder:\n    def f(self):\n" + "        pass\n" * 60,
        "jobs/records.py": "Record = dict[str, Any]\nclass C:\n    row: list[Record]\n    size: dict[str, int]",
        "jobs/run.py": "from jobs import records\ndef f(a: Mapping[str, Any] | None, b: str) -> records.Record: ...",
    }
    for path, text in lines.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_everything_unwanted_is_seen(crooked: Path) -> None:
    house = measure(crooked)
    assert house.circles == (("orchestrator.distill", "orchestrator.spec"),)
    assert len(house.up) == 1 and house.arrows == 4
    assert house.long_files == {"orchestrator/plan.py": 301}
    assert house.long_functions == {"models/ladder.py:2 Ladder.f": 61}
    assert house.loose == {"jobs/records.py C.row": 1, "jobs/run.py f": 2}
    assert house.folders["orchestrator"] == 2


def test_the_table_has_a_line_for_each_figure(crooked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(crooked)]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = {line[:36].strip(): int(line[36:]) for line in lines if not line.startswith(" ")}
    assert figures == {
        "most files in a folder": 2,
        "arrows between rooms": 4,
        "arrows up": 1,
        "circles": 1,
        "files over 300 lines": 1,
        "functions over 60 lines": 1,
        "mappings of anything in signatures": 3,
    }
