"""Where photographs are found, and what is kept of it: subfolders, tars, S3, manifests."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from orchestrator.photographs import examine, manifest
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.photos import PhotographError, load_rgb
from orchestrator.photographs.survey import Keeping, Survey, in_threads, survey
from orchestrator.store.store import Store

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"


def picture(number: int, side: int = 70) -> Image.Image:
    """A picture like no other number's."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8))


def encoded(number: int, side: int = 70) -> bytes:
    buffer = io.BytesIO()
    picture(number, side).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def names(surveyed: Survey, root: str | Path) -> list[str]:
    return [photograph.path.removeprefix(f"{root}/") for photograph in surveyed.photographs]


MEMBERS = {
    "a/one.png": encoded(1),
    "a/one.json": b"{}",
    "a/one.mask.png": encoded(2),  # another field of the sample, by WebDataset's convention
    "a/.hidden.png": encoded(3),
    "two.PNG": encoded(4),
    "small.png": encoded(5, 60),
    "torn.png": encoded(6)[:300],
}


@pytest.fixture
def tree(tmp_path) -> Path:
    """Photographs in three levels of folders, and a tar of some more."""
    for number, folder in enumerate(("", "b", "b/c", "d"), start=10):
        (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / folder / "file.png").write_bytes(encoded(number))
    write_tar(tmp_path / "root" / "b" / "shard-0.tar", MEMBERS)
    return tmp_path / "root"


FOUND = ["b/c/file.png", "b/file.png", "b/shard-0.tar/a/one.png", "b/shard-0.tar/two.PNG", "d/file.png", "file.png"]
KINDS = {"too small 1", "cannot be decoded 1", "*.json 1", "*.mask.png 1", "hidden 1"}


def test_subfolders_and_tars(tree):
    surveyed = survey(tree, minimum_side=64, unfit="skip")
    assert names(surveyed, tree) == FOUND
    used, _, left_out = surveyed.summary.partition("; left out 5: ")
    assert used == f"{tree}: 6 used" and {*left_out.split(", ")} == KINDS
    small, torn = surveyed.findings
    assert small == f"{tree}/b/shard-0.tar/small.png: 60x60 pixels; both sides need at least 64"
    assert torn.startswith(f"{tree}/b/shard-0.tar/torn.png: cannot be decoded (")
    for photograph, number in zip(surveyed.photographs, (12, 11, 1, 4, 13, 10), strict=True):
        np.testing.assert_array_equal(load_rgb(photograph), np.asarray(picture(number)))


def test_a_member_is_read_where_it_is_without_the_tar_being_opened(tree, monkeypatch):
    photographs = survey(tree, minimum_side=64, unfit="skip").photographs
    (member,) = (photograph for photograph in photographs if photograph.path.endswith("two.PNG"))
    monkeypatch.setattr(tarfile, "open", lambda *given, **named: pytest.fail("the tar was looked through"))
    np.testing.assert_array_equal(load_rgb(member), np.asarray(picture(4)))
    with (tree / "b" / "shard-0.tar").open("rb+") as tar:
        tar.truncate(member.offset + 20)
    with pytest.raises(PhotographError, match=r"shard-0\.tar/two\.PNG: "):
        load_rgb(member)


@pytest.mark.parametrize("damage", ["cut", "a header", "no end", "not a tar", "empty"])
def test_a_damaged_tar_is_named_and_what_lies_ahead_is_used(tree, damage):
    path = tree / "b" / "shard-0.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        offset = tar.getmember("two.PNG").offset
    data = {
        "cut": whole[: offset + 700],
        "a header": whole[:offset] + b"x" * 512 + whole[offset + 512 :],
        "no end": whole[:offset],
        "not a tar": b"no tar" * 1000,
        "empty": b"",
    }[damage]
    path.write_bytes(data)
    with pytest.raises(PhotographError) as caught:
        survey(tree, minimum_side=64)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: not a tar, or not a whole one (ReadError: ") and line.isprintable()
    surveyed = survey(tree, minimum_side=64, unfit="skip")
    ahead = [] if damage in ("not a tar", "empty") else ["b/shard-0.tar/a/one.png"]
    assert [name for name in names(surveyed, tree) if ".tar" in name] == ahead
    assert "not a whole tar 1" in surveyed.summary


def test_the_same_picture_in_a_tar_and_a_folder_is_used_once(tree):
    (tree / "again.png").write_bytes(MEMBERS["two.PNG"])
    surveyed = survey(tree, minimum_side=64, unfit="skip")
    assert names(surveyed, tree) == ["again.png", *(name for name in FOUND if not name.endswith("two.PNG"))]
    assert f"{tree}/b/shard-0.tar/two.PNG: the same picture as again.png" in surveyed.findings


def test_a_folder_within_that_cannot_be_listed_is_one_line(tree, monkeypatch):
    scandir = os.scandir

    def refused(folder: str) -> object:
        if folder.endswith("/b/c"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PhotographError, match=r"/b/c: cannot be read: Permission denied$"):
        survey(tree, minimum_side=64)


@dataclass
class Looking:
    """What was examined and said."""

    files: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    fail_at: str = ""

    def __call__(self, chunks: Sequence[pa.Table]) -> Iterator[pa.Table]:
        for chunk in chunks:
            files = [os.fsdecode(file) for file in chunk["file"].to_pylist()]
            if self.fail_at and any(file.endswith(self.fail_at) for file in files):
                raise KeyboardInterrupt
            self.files += files
            yield from in_threads([chunk])

    def keeping(self, store: Store) -> Keeping:
        self.files.clear()
        return Keeping(store=store, say=self.lines.append, examine=self, kept_from=0)


@pytest.fixture
def kept(tmp_path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_found_is_known_at_the_next_start(tree, kept):
    looking = Looking()
    first = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert len(looking.files) == 5 and len(kept.list("manifests")) == 2
    second = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert looking.files == []
    assert (second.findings, second.summary) == (first.findings, first.summary)
    assert [*second.photographs] == [*first.photographs]
    assert first.summary == survey(tree, minimum_side=64, unfit="skip").summary
    larger = survey(tree, minimum_side=30, unfit="skip", keeping=looking.keeping(kept))  # of the same rows
    assert looking.files == [] and len(larger.photographs) == 7
    with pytest.raises(PhotographError, match=r"torn\.png: cannot be decoded"):
        survey(tree, minimum_side=30, keeping=looking.keeping(kept))


def test_new_changed_and_removed_files_alone_are_looked_at(tree, kept):
    looking = Looking()
    survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    (tree / "new.png").write_bytes(encoded(30))
    (tree / "d" / "file.png").unlink()
    (tree / "b" / "file.png").write_bytes(encoded(31))
    (tree / "b" / "c" / "file.png").write_bytes(b"damaged")
    surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert sorted(looking.files) == [f"{tree}/{name}" for name in ("b/c/file.png", "b/file.png", "new.png")]
    assert looking.lines[-1] == "photographs: 2 of 5 files are known, 3 are not"
    fresh = survey(tree, minimum_side=64, unfit="skip")
    assert (surveyed.findings, surveyed.summary) == (fresh.findings, fresh.summary)
    assert [*surveyed.photographs] == [*fresh.photographs]
    write_tar(tree / "b" / "shard-0.tar", {"a/one.png": encoded(32)})
    surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert looking.files == [f"{tree}/b/shard-0.tar"]
    assert [name for name in names(surveyed, tree) if ".tar" in name] == ["b/shard-0.tar/a/one.png"]
    assert len(kept.list("manifests")) == 2  # and none of those before


def test_a_survey_that_is_interrupted_goes_on(tree, kept):
    looking = Looking(fail_at="file.png")
    with pytest.raises(KeyboardInterrupt):
        survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert looking.files == [f"{tree}/b/shard-0.tar"]
    looking.fail_at = ""
    surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert len(looking.files) == 4 and names(surveyed, tree) == FOUND


def test_what_is_found_is_kept_now_and_then(tree, kept, monkeypatch):
    monkeypatch.setattr("orchestrator.photographs.survey.SAVE_S", 0.0)
    saved: list[int] = []
    save = manifest.save

    def counted(store: Store, place: str, rows: pa.Table, files: int) -> None:
        saved.append(rows.num_rows)
        save(store, place, rows, files)

    monkeypatch.setattr(manifest, "save", counted)
    survey(tree, minimum_side=64, unfit="skip", keeping=Looking().keeping(kept))
    assert saved == [5, 6, 7, 8, 9, 9]  # after the tar, after each file, and at the end


def test_a_file_that_could_not_be_read_is_tried_again(tree, kept, monkeypatch):
    looking, read = Looking(), Path.read_bytes

    def refused(path: Path) -> bytes:
        if path == tree / "file.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
        assert f"{tree}/file.png: cannot be read (PermissionError: " in "\n".join(surveyed.findings)
    surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert looking.files == [f"{tree}/file.png"] and names(surveyed, tree) == FOUND


@pytest.mark.parametrize("damage", ["rows", "pointer", "gone", "another Pillow", "other rules", "another format"])
def test_a_manifest_that_cannot_be_used_is_made_anew(tree, kept, damage, monkeypatch):
    looking = Looking()
    before = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    pointer, rows = sorted(kept.list("manifests"), key=lambda name: name.endswith(".parquet"))
    if damage == "rows":
        kept.replace(rows, kept.read(rows)[:-1] + b"?")
    elif damage == "gone":
        kept.delete(rows)
    elif damage == "pointer":
        kept.replace(pointer, b"{")
    elif damage == "another format":
        kept.replace(pointer, json.dumps(json.loads(kept.read(pointer)) | {"format": 2}).encode())
    elif damage == "other rules":
        monkeypatch.setattr(manifest, "RULES_VERSION", examine.RULES_VERSION + 1)
    else:
        monkeypatch.setattr(manifest, "version", lambda name: "0.0")
    surveyed = survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert len(looking.files) == 5 and surveyed.summary == before.summary
    survey(tree, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert looking.files == []


def test_few_files_leave_no_manifest(tree, kept):
    keeping = Keeping(store=kept, say=print, examine=in_threads)
    assert names(survey(tree, minimum_side=64, unfit="skip", keeping=keeping), tree) == FOUND
    assert kept.list() == []


def test_a_few_large_tars_leave_one(tree, kept, monkeypatch):
    monkeypatch.setattr("orchestrator.photographs.survey.KEPT_FROM_BYTES", 10_000)
    keeping = Keeping(store=kept, say=print, examine=in_threads)
    assert names(survey(tree, minimum_side=64, unfit="skip", keeping=keeping), tree) == FOUND
    assert len(kept.list("manifests")) == 2


def test_train_and_validation_stay_apart_by_the_manifest_too(tree, kept, tmp_path):
    shutil.copytree(tree / "d", tmp_path / "held-out")
    held_out = survey(tmp_path / "held-out", minimum_side=64).photographs
    seen = {photograph.digest for photograph in held_out}
    for _ in range(2):
        surveyed = survey(tree, minimum_side=64, unfit="skip", exclude=seen, keeping=Looking().keeping(kept))
        assert names(surveyed, tree) == [name for name in FOUND if name != "d/file.png"]
        assert f"{tree}/d/file.png: the same picture is in the other folder" in "\n".join(surveyed.findings)


def test_rows_are_photographs_and_back(tree):
    photographs = survey(tree, minimum_side=64, unfit="skip").photographs
    again = PhotographTable.of([*photographs])
    assert [*again] == [*photographs] and PhotographTable.of(photographs) is photographs
    assert photographs[-1] == again[5] and photographs[1:3] == (again[1], again[2])
    assert again.by_digest[photographs[2].digest] == photographs[2] and len(again.by_digest) == 6
    assert "0" * 64 not in again.by_digest and "f" * 64 not in again.by_digest
    assert {*again.by_digest} == {photograph.digest for photograph in photographs}
    assert again.identity == [photograph.digest for photograph in photographs]


@pytest.mark.slow
def test_on_s3(tree, kept, s3_server, s3_environment):
    """Files, members of a tar and a manifest of them; one file is added, one is damaged, one is replaced."""
    prefix = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    bucket, looking = Store(prefix), Looking()
    for file in tree.rglob("*.*"):
        bucket.publish(file.relative_to(tree).as_posix(), file.read_bytes())
    bucket.publish("notes.txt", b"")
    surveyed = survey(prefix, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert names(surveyed, prefix) == FOUND and len(looking.files) == 5 and "*.txt 1" in surveyed.summary
    local = survey(tree, minimum_side=64, unfit="skip").photographs
    assert [photograph.digest for photograph in surveyed.photographs] == [photograph.digest for photograph in local]
    for ours, theirs in zip(surveyed.photographs, local, strict=True):
        np.testing.assert_array_equal(load_rgb(ours), load_rgb(theirs))
    bucket.publish("new.png", encoded(30))
    bucket.replace("d/file.png", b"damaged")
    bucket.replace("b/file.png", encoded(31))
    surveyed = survey(prefix, minimum_side=64, unfit="skip", keeping=looking.keeping(kept))
    assert sorted(looking.files) == [f"{prefix}/{name}" for name in ("b/file.png", "d/file.png", "new.png")]
    assert names(surveyed, prefix) == [*FOUND[:4], "file.png", "new.png"]
    assert f"{prefix}/d/file.png: not an image" in "\n".join(surveyed.findings)
    with pytest.raises(PhotographError, match=f"^{prefix}-none: no photographs in it"):
        survey(f"{prefix}-none", minimum_side=64)
    with pytest.raises(PhotographError, match=r"^s3://no-such-bucket/x: the bucket does not exist"):
        survey("s3://no-such-bucket/x", minimum_side=64)
