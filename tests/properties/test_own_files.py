"""Files that this project wrote, cut off or foreign: read, or one line of the error that belongs to them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.catalogue import SHIPPED
from models.weights import WeightsError, read_metadata
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import FeatureError
from orchestrator.features.format.ledger import ShardRecord, from_json
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.keep.holds import read_holds
from orchestrator.results.account import Account, Forecasts
from orchestrator.results.anchor import AnchorFile, Complexities
from orchestrator.results.format import FormatError, json_value, parse
from orchestrator.results.front import Candidates, CodedCurve, Front
from orchestrator.results.versions import Versions
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord
from tests.properties.values import JSON, is_one_line

KINDS: list[type[Any]] = [Account, Forecasts, AnchorFile, Complexities, Front, Candidates, CodedCurve, Versions]
FOREIGN = JSON | st.dictionaries(st.sampled_from(["format", "students", "anchor", "objects", "taps", "lease"]), JSON)
NESTED = st.integers(0, 10**5).map(lambda depth: b"[" * depth)
DATA = st.binary() | NESTED | FOREIGN.map(lambda value: json.dumps(value).encode())


def _in_one_line(read: Callable[[], object], *errors: type[Exception]) -> None:
    try:
        read()
    except errors as error:
        assert is_one_line(str(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=DATA | st.dictionaries(st.text(), JSON).map(lambda value: json.dumps({"format": 1, **value}).encode()))
def test_a_foreign_result_is_one_line(kind: type[Any], data: bytes) -> None:
    with pytest.raises(FormatError) as raised:
        parse(data, kind, "runs/a/file.json")
    assert is_one_line(str(raised.value)) and str(raised.value).startswith("runs/a/file.json: ")


@given(data=DATA)
def test_other_files_of_a_run_folder_are_one_line(data: bytes) -> None:
    _in_one_line(lambda: json_value(data, "inputs.json"), FormatError)
    _in_one_line(lambda: TrialRecord.from_json(data, "trials/1.json"), FormatError)


@given(data=DATA)
@example(data=b'{"format": "\\r"}')
def test_files_of_a_feature_store_are_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    _in_one_line(lambda: ShardRecord.from_json(data), FeatureError)
    _in_one_line(lambda: from_json(data), ValueError)
    header = struct.pack("<Q", len(data)) + data
    _in_one_line(lambda: StoredTap("y", MemoryBlob(header + bytes(64))), FeatureError)


@given(
    note=FOREIGN
    | st.fixed_dictionaries(
        {"format": st.integers(1, 3)},
        optional=dict.fromkeys(("taps", "crops", "shards", "interval_s", "ended", "holder"), JSON),
    )
)
def test_a_foreign_hold_holds_everything(tmp_path_factory: pytest.TempPathFactory, note: Any) -> None:
    store = Store(tmp_path_factory.mktemp("holds"))
    store.replace("holds/plan/note.json", json.dumps(note).encode())
    (hold,) = read_holds(store)
    assert hold.plan == "plan"


WEIGHTS = (SHIPPED / "teacher-hyperprior.safetensors").read_bytes()
DESCRIBED = {
    "family": "hyperprior",
    "N": 8,
    "M": 12,
    "Z": 8,
    "kind": "variable-rate",
    "lambdas": [0.1],
    "distortion": "mse",
}


def _weights(described: Any) -> bytes:
    """A safetensors file without tensors."""
    header = json.dumps({"__metadata__": {"rate_ladder": json.dumps(described)}}).encode()
    return struct.pack("<Q", len(header)) + header


@given(
    data=DATA
    | st.integers(0, 5000).map(lambda length: WEIGHTS[:length])
    | st.dictionaries(st.sampled_from([*DESCRIBED]), JSON).map(lambda changed: _weights(DESCRIBED | changed))
    | JSON.map(_weights)
)
def test_foreign_weights_are_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "foreign.safetensors"
    file.write_bytes(data)
    _in_one_line(lambda: read_metadata(file), WeightsError)
