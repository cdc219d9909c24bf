"""The photographs of a place: which files are fit, and in one line each why others are not."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from models.one_line import one_line
from orchestrator.photographs import manifest
from orchestrator.photographs.columns import DIGEST_BYTES, PhotographTable, digest_array
from orchestrator.photographs.examine import IS_TAR, examine, schema
from orchestrator.photographs.listing import Listing, list_files
from orchestrator.photographs.photos import PhotographError
from orchestrator.photographs.picture import Unfit, endings, size_problem
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

KINDS_NAMED = 8  # kinds of files left out that a summary counts one by one
FILES_TOGETHER = 128  # that are examined by one call
KEPT_FROM = 1000  # files, or
KEPT_FROM_BYTES = 2**28  # of tars and large files: what is found in less is not kept, as looking again takes no time
PROGRESS_S = 3.0
SAVE_S = 300.0  # between two times that what was found is kept: a look at a million photographs takes an hour
IN_THE_OTHER = Unfit(
    "in the other folder", "the same picture is in the other folder; train and validation must be apart"
)

Examine = Callable[[Sequence["pa.Table"]], Iterator["pa.Table"]]  # files -> their rows, in any order


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The photographs of a place."""

    photographs: PhotographTable  # the fit ones, by path
    findings: tuple[str, ...]  # `path: reason` for each unfit file
    summary: str  # one line: the place, how many photographs are used, and what is not, counted by kind


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where what is found is kept, and who looks."""

    store: Store
    say: Callable[[str], None]  # takes a line of progress
    examine: Examine
    kept_from: int = KEPT_FROM


def survey(
    place: str | os.PathLike[str],
    *,
    minimum_side: int,
    unfit: Literal["fail", "skip"] = "fail",
    exclude: Collection[str] = frozenset(),
    keeping: Keeping | None = None,
) -> Survey:
    """Examines every picture of a folder or below an S3 prefix, in subfolders and tars too, by its ending in upper or
    lower case.

    Pictures are turned upright by their EXIF tag; greyscale, palettes and fully opaque alpha become RGB. Unfit are:
    files that do not decode, links to nothing, pictures that Pillow does not read (`NOT_READ`), CMYK and other colour
    spaces, transparency, more than 8 bits a channel, several frames, a side below `minimum_side` pixels, more pixels
    than Pillow's decompression-bomb limit, a picture that occurs twice, pictures whose digest is in `exclude` (those of
    the other folder, so that train and validation stay apart), and tars that are not whole. Hidden files, linked
    folders and other endings are passed over, and counted in the summary.

    Args:
        place: a folder, or s3://bucket/prefix.
        keeping: None: nothing is kept, and threads of this process look.

    Raises PhotographError: with unfit="fail" if anything is unfit; if no file is fit; if S3 cannot be reached.
    """
    try:
        listing = list_files(place)
        if not listing.files.num_rows:
            looked_for = f"looked for *{', *'.join(sorted(endings()))}{_counts(listing.passed_over)}"
            raise PhotographError(f"{one_line(listing.place)}: no photographs in it ({looked_for})")
        if keeping is not None and _is_kept(listing, keeping.kept_from):
            rows = _kept_rows(listing, keeping)
        else:
            rows = _sorted([*in_threads(_together(listing.files))])
    except StoreError as error:
        raise PhotographError(str(error)) from error
    fit, findings, kinds = chosen(rows, minimum_side, exclude)
    if findings and unfit == "fail":
        raise PhotographError("\n".join(findings))
    if not len(fit):
        raise PhotographError("\n".join([*findings, f"{one_line(listing.place)}: no photograph in it is fit"]))
    summary = one_line(f"{listing.place}: {len(fit)} used{_counts(listing.passed_over + kinds)}")
    return Survey(photographs=PhotographTable(rows.take(fit)), findings=tuple(findings), summary=summary)


def in_threads(chunks: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Examines files in threads of this process: Pillow decodes outside the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(examine, chunks)


def _together(files: pa.Table) -> list[pa.Table]:
    """Files in groups that are examined by one call each, a tar by itself."""
    tars = np.array([name.lower().endswith(b".tar") for name in files["file"].to_pylist()], bool)
    single, plain = np.flatnonzero(tars), np.flatnonzero(~tars)
    most = max(1, min(FILES_TOGETHER, len(plain) // 64))
    places = [*single[:, None], *(plain[first : first + most] for first in range(0, len(plain), most))]
    return [files.take(place).combine_chunks() for place in places]  # copies: a slice is sent with all of its table


def _is_kept(listing: Listing, kept_from: int) -> bool:
    import pyarrow.compute as pc

    return listing.files.num_rows >= kept_from or pc.sum(listing.files["bytes"]).as_py() >= KEPT_FROM_BYTES


def _kept_rows(listing: Listing, keeping: Keeping) -> pa.Table:
    """The rows of all files: those of the manifest, and of new and changed files, which are kept in their turn."""
    before = manifest.load(keeping.store, listing.place)
    kept, new = manifest.as_they_were(before, listing)
    total, rows, saved = listing.files.num_rows, [kept], time.monotonic()

    def save() -> pa.Table:
        found = _sorted(rows)
        if found.num_rows != before.num_rows or len(rows) > 1:
            manifest.save(keeping.store, listing.place, found, total)
        return found

    try:
        if new.num_rows:
            keeping.say(f"photographs: {total - new.num_rows:,} of {total:,} files are known, {new.num_rows:,} are not")
            for found in _with_progress(keeping, new):
                rows.append(found)
                if time.monotonic() - saved >= SAVE_S:
                    save()
                    saved = time.monotonic()
    except BaseException:  # a long look that is interrupted goes on where it was
        save()
        raise
    return save()


def _with_progress(keeping: Keeping, files: pa.Table) -> Iterator[pa.Table]:
    began = spoken = time.monotonic()
    done = photographs = 0
    for rows in keeping.examine(_together(files)):
        photographs += rows.num_rows
        done += manifest.files_of(rows)
        yield rows
        now = time.monotonic()
        if now - spoken >= PROGRESS_S:
            spoken, passed = now, now - began
            left = f"{(files.num_rows - done) * passed / done / 60:.0f} min left"
            rate = f"{photographs / passed:,.0f} photographs a second"
            keeping.say(f"photographs: {done:,} of {files.num_rows:,} files, {rate}, {left}")


def _sorted(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([schema().empty_table(), *tables]).sort_by("path").combine_chunks()


def chosen(
    rows: pa.Table, minimum_side: int, exclude: Collection[str]
) -> tuple[npt.NDArray[np.int64], list[str], Counter[str]]:
    """The rows to use; `path: reason` for each other, in order; and what is left out, counted by kind."""
    import pyarrow.compute as pc

    digests = np.ascontiguousarray(digest_array(rows["digest"].combine_chunks())).view(f"S{DIGEST_BYTES}").ravel()
    sides = np.asarray(pc.fill_null(pc.min_element_wise(rows["width"], rows["height"]), 0))
    known = np.asarray(pc.is_null(rows["kind"]))
    large = known & (sides >= minimum_side)
    elsewhere = np.isin(digests, np.array([bytes.fromhex(digest) for digest in exclude], digests.dtype))
    candidates = np.flatnonzero(large & ~elsewhere)
    _, first, group = np.unique(digests[candidates], return_index=True, return_inverse=True)
    first_of = candidates[first]  # `return_index` gives the first of the same
    fit = np.sort(first_of)
    same_as = (
        dict(zip(candidates.tolist(), first_of[group].tolist(), strict=True)) if len(fit) < len(candidates) else {}
    )
    findings, kinds = [], Counter[str]()
    for place in np.setdiff1d(np.arange(rows.num_rows), fit).tolist():
        row = rows.slice(place, 1).to_pylist()[0]
        if row["kind"] == IS_TAR:
            kinds.update(json.loads(row["reason"]))
            continue
        if row["kind"] is not None:
            why = Unfit(row["kind"], os.fsdecode(row["reason"]))
        elif place in same_as:
            name = os.fsdecode(rows["path"][same_as[place]].as_py()).rpartition("/")[2]
            why = Unfit("the same picture", f"the same picture as {name}")
        else:
            apart = Unfit(
                "in the other folder", "the same picture is in the other folder; train and validation must be apart"
            )
            why = size_problem(row["width"], row["height"], minimum_side) or apart
        kinds[why.kind] += 1
        findings.append(one_line(f"{os.fsdecode(row['path'])}: {why.reason}"))
    return fit, findings, kinds


def _counts(left_out: Counter[str]) -> str:
    """What was left out, the most frequent kinds first."""
    if not left_out:
        return ""
    kinds = left_out.most_common(KINDS_NAMED)
    others = left_out.total() - sum(count for _, count in kinds)
    texts = [f"{kind} {count}" for kind, count in kinds] + ([f"others {others}"] if others else [])
    return f"; left out {left_out.total()}: {', '.join(texts)}"
