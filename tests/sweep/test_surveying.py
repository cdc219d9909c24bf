"""The photographs of a sweep: few are looked at by threads, many by Ray's tasks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.photographs.listing import list_files
from orchestrator.photographs.survey import Keeping, in_threads, survey
from orchestrator.spec.sections import Photographs
from orchestrator.store.store import Store
from orchestrator.sweep import surveying
from orchestrator.sweep.surveying import in_tasks, survey_both

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"
TRAIN = QUICKSTART / "train"


def in_pieces(place: Path) -> list[pa.Table]:
    files = list_files(place).files
    return [files.slice(first, 4) for first in range(0, files.num_rows, 4)]


def test_few_files_do_without_ray(monkeypatch):
    monkeypatch.setattr("ray.remote", lambda **options: pytest.fail("a task"))
    rows = pa.concat_tables(in_tasks(in_pieces(TRAIN)))
    assert rows.num_rows == 22 and rows["kind"].null_count == 22


@pytest.mark.parametrize("limit", ["RAY_FROM", "RAY_FROM_BYTES"])
def test_many_files_are_looked_at_by_tasks(local_ray, monkeypatch, limit):
    monkeypatch.setattr(surveying, limit, 1)
    monkeypatch.setattr(surveying, "in_threads", lambda chunks: pytest.fail("threads"))
    rows = pa.concat_tables(in_tasks(in_pieces(TRAIN))).sort_by("path")
    assert rows.equals(pa.concat_tables(in_threads(in_pieces(TRAIN))).sort_by("path"))


def test_what_tasks_find_is_kept_with_lines_of_progress(local_ray, monkeypatch, tmp_path):
    monkeypatch.setattr(surveying, "RAY_FROM", 1)
    monkeypatch.setattr("orchestrator.photographs.survey.PROGRESS_S", 0.0)
    lines: list[str] = []
    keeping = Keeping(store=Store(tmp_path), say=lines.append, examine=in_tasks, kept_from=1)
    first, second = (survey(TRAIN, minimum_side=128, keeping=keeping) for _ in range(2))
    assert [*first.photographs] == [*second.photographs] == [*survey(TRAIN, minimum_side=128).photographs]
    assert lines[0] == "photographs: 0 of 22 files are known, 22 are not"
    assert lines[-1].startswith("photographs: 22 of 22 files, ") and lines[-1].endswith(" a second, 0 min left")
    assert len(lines) == 23


def test_both_are_surveyed_and_said(tmp_path, capsys):
    photographs = Photographs(train=str(TRAIN), validation=str(QUICKSTART / "validation"))
    train, held_out = survey_both(photographs, Store(tmp_path), train_side=128, validation_side=256)
    assert (len(train.photographs), len(held_out.photographs)) == (22, 6)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"photographs.train {TRAIN}: 22 used",
        f"photographs.validation {QUICKSTART / 'validation'}: 6 used",
    ]
    assert Store(tmp_path).list() == []
