"""Bundles in a run folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from orchestrator.results.bundles import CodingCosts, bundle_file, costs_file, packed, unpacked
from orchestrator.results.files import read_file, write_file
from orchestrator.results.format import FormatError
from orchestrator.store.store import Store
from tests.results.builders import coding_costs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("codec.json", b"{}"), ("entropy.npz", b"entropy"), ("g_a.0.onnx", bytes(1000))):
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_what_is_packed_is_unpacked_and_equal_bundles_are_equal_bytes(folder: Path) -> None:
    content = packed(folder)
    assert unpacked(content, "it") == {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "codec.json").write_bytes(b"{}")  # later
    assert packed(folder) == content


def test_a_damaged_bundle_is_one_line(folder: Path) -> None:
    content = packed(folder)
    middle = content.index(b"entropy", 60) + 1
    damaged = (content[: len(content) // 2], content[:middle] + b"?" + content[middle + 1 :], b"", b"no zip at all")
    for wrong in damaged:
        with pytest.raises(FormatError, match=r"^bundles/a\.zip: damaged: [^\n]*; without it the same command"):
            unpacked(wrong, "bundles/a.zip")


def test_a_compressed_bundle_is_the_same_bundle_and_a_damaged_one_is_one_line(folder: Path) -> None:
    content = packed(folder, zipfile.ZIP_DEFLATED)
    assert unpacked(content, "it") == unpacked(packed(folder), "it") and len(content) < len(packed(folder))
    middle = content.index(b"g_a.0.onnx") + len(b"g_a.0.onnx")
    with pytest.raises(FormatError, match=r"^it: damaged: "):
        unpacked(content[:middle] + b"\xff\xff" + content[middle + 2 :], "it")


def test_a_file_without_a_card_or_with_a_path_in_it_is_no_bundle(folder: Path) -> None:
    buffer = io.BytesIO(packed(folder))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../up", b"")
    (folder / "codec.json").unlink()
    for wrong in (packed(folder), buffer.getvalue()):
        with pytest.raises(FormatError, match=r"^it: no bundle"):
            unpacked(wrong, "it")


def test_other_weights_have_another_file() -> None:
    assert bundle_file("01-a", "0" * 64) == "bundles/01-a-000000000000.zip" != bundle_file("01-a", "1" * 64)
    assert costs_file("01-a", "0" * 64) == "bundles/01-a-000000000000.json" != costs_file("01-a", "1" * 64)


@pytest.mark.parametrize("peak", [140.0, None])
def test_costs_are_read_as_they_were_written(tmp_path: Path, peak: float | None) -> None:
    run, name, costs = Store(tmp_path), costs_file("01-a", "0" * 64), coding_costs(peak_memory_mb=peak)
    assert read_file(run, name, CodingCosts) is None
    write_file(run, name, costs)
    assert read_file(run, name, CodingCosts) == costs and (b"peak" in run.read(name)) == (peak is not None)
