"""Specifications, recipes and cluster descriptions: whatever is written there is read, or one line a problem."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusters.description import load_cluster
from orchestrator.spec.load import dump, load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.spec import Spec
from tests.properties.values import JSON, ODD_TEXT, is_one_line

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "specs" / "quickstart.yaml"
RECIPE = ROOT / "jobs" / "specs" / "teacher-hyperprior.yaml"
CLUSTER = ROOT / "clusters" / "specs" / "cpu-test.yaml"
DOCUMENTS = {path: yaml.safe_load(path.read_text()) for path in (QUICKSTART, RECIPE, CLUSTER)}
# What a field of ours might hold, near to what it should.
NEAR = st.sampled_from([0, 1, 2, 8, 64, 0.5, "random", "grid", "zoo:mbt2018-mean", "a.safetensors", "none", True, None])
VALUES = NEAR | JSON


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every entry, sections and lists as well."""
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    below = [inner for key, value in steps for inner in _paths(value, (*path, key))]
    return [path, *below] if path else below


FIELDS = {path: _paths(document) for path, document in DOCUMENTS.items()}


def _changed(document: Any, changes: list[tuple[tuple[Any, ...], Any]]) -> Any:
    """A copy with other values at some paths; those that another change has taken away are left out."""
    document = copy.deepcopy(document)
    for path, value in changes:
        parent = document
        for step in path[:-1]:
            try:
                parent = parent[step]
            except (KeyError, IndexError, TypeError):
                break
        else:
            with suppress(IndexError, TypeError):
                parent[path[-1]] = value
    return document


def _read(path: Path, overrides: tuple[str, ...] = (), source: Path = QUICKSTART) -> Any:
    """What is read; None if it was refused, with one line a problem."""
    try:
        if source == CLUSTER:
            return load_cluster(path, overrides)
        return load_spec(path, overrides, model=Recipe if source == RECIPE else Spec)
    except SpecError as error:
        assert error.problems and all(is_one_line(problem) for problem in error.problems), error.problems
        return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specifications") / "spec.yaml"


@given(data=st.binary() | ODD_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_one_line(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert _read(file) is None


@given(document=JSON)
def test_any_json_is_one_line_a_problem(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document))
    assert _read(file) is None


@pytest.mark.parametrize("source", DOCUMENTS, ids=lambda path: path.stem)
@given(draw=st.data())
def test_other_values_are_read_or_one_line_a_problem(file: Path, source: Path, draw: st.DataObject) -> None:
    changes = draw.draw(st.lists(st.tuples(st.sampled_from(FIELDS[source]), VALUES), max_size=3))
    file.write_text(json.dumps(_changed(DOCUMENTS[source], changes)))
    read = _read(file, source=source)
    if isinstance(read, Spec):
        file.write_text(dump(read))
        assert _read(file) == read
        read.resolved(file.parent)


KEYS = st.sampled_from(sorted({".".join(map(str, path)) for path in FIELDS[QUICKSTART]}))
OVERRIDES = ODD_TEXT | st.builds("{}={}".format, KEYS | ODD_TEXT, ODD_TEXT | VALUES.map(json.dumps))


@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=3))
def test_overrides_are_read_or_one_line_a_problem(overrides: list[str]) -> None:
    _read(QUICKSTART, tuple(overrides))


@given(path=ODD_TEXT)
def test_a_file_that_is_not_there_is_one_line(file: Path, path: str) -> None:
    assert _read(Path(f"{file.parent}/none/{path}")) is None
