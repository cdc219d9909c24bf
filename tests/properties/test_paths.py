"""Paths and URLs: a folder's name is taken literally or refused in one line, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import assume, given
from hypothesis import strategies as st
from mlflow.utils.file_utils import local_file_uri_to_path

from orchestrator.registry.database import database_url
from orchestrator.spec import allowed
from orchestrator.spec.messages import SpecError, without_credentials
from orchestrator.spec.paths import absolute
from orchestrator.store.errors import StoreError
from orchestrator.store.place import local_folder, unusable
from orchestrator.store.store import Store
from tests.properties.values import ODD_TEXT, is_one_line

# A name that a folder may have on disk; it may be as long as the file system allows.
NAMES = ODD_TEXT.map(
    lambda text: text.encode("utf-8", "replace").decode().replace("/", "").replace("\0", "")[:60]
).filter(lambda name: name not in ("", ".", ".."))
PLACES = ODD_TEXT | st.builds("{}://{}".format, st.sampled_from(["file", "s3", "gs", ""]), ODD_TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paths")


@given(text=PLACES)
def test_a_place_is_taken_or_refused_in_one_line(text: str) -> None:
    try:
        place = allowed.place(text)
        store = Store(place)
    except (ValueError, StoreError) as error:
        assert is_one_line(str(error))
        return
    assert (store.folder is None) == place.startswith("s3://")
    assert is_one_line(without_credentials(str(unusable(place))))


@given(name=NAMES, inner=NAMES, as_url=st.booleans())
def test_a_store_is_where_its_name_says(folder: Path, name: str, inner: str, as_url: bool) -> None:
    path = f"{folder}/{name}"
    assume(not path.endswith("/"))
    store = Store(f"file://{path}" if as_url else path)
    assert store.folder == Path(path) == local_folder(store.url)
    try:
        store.replace(f"{inner}/object", b"1")
    except ValueError as error:  # no name of an object
        assert is_one_line(str(error))
        return
    except StoreError as error:
        assert is_one_line(str(error)) or "\n" in path  # too long a name
        return
    assert (Path(path) / inner / "object").read_bytes() == b"1" == Store(store.url).read(f"{inner}/object")
    assert store.list() == [f"{inner}/object"]
    store.delete(f"{inner}/object")


@given(name=NAMES)
def test_urls_of_files_lead_back_to_them(folder: Path, name: str) -> None:
    file = folder / name / "mlflow.db"
    assert sqlalchemy.make_url(database_url(file)).database == str(file)
    assert local_file_uri_to_path(file.as_uri()) == str(file)


@given(text=ODD_TEXT)
def test_a_path_is_made_absolute_or_refused_in_one_line(folder: Path, text: str) -> None:
    try:
        path = absolute(allowed.local_path(text), folder)
    except (SpecError, ValueError) as error:
        assert is_one_line(str(error))
        return
    assert Path(path).is_absolute() or text.startswith("zoo:") or text in ("random", "teacher-slice")
