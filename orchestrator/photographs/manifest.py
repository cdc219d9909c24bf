"""Manifests: what was found in a place's files, kept in a store, so that a start examines new files alone.

    manifests/PLACE.json      {"format": 1, "place", "by": versions, "manifest": DIGEST, "files": how many}
    manifests/DIGEST.parquet  the rows of `examine`, sorted by path; DIGEST is of the file's bytes

PLACE is the SHA-256 of the place. A file with the same size and stamp (the time of its last change, or its ETag) keeps
its rows. What was found by another version of Pillow, or of our rules, counts as not found.
"""

from __future__ import annotations

import hashlib
import io
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from orchestrator.photographs.examine import RULES_VERSION, UNREADABLE, schema
from orchestrator.photographs.listing import Listing
from orchestrator.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1


def load(store: Store, place: str) -> pa.Table:
    """The rows that are kept of a place; none if there is no whole manifest of this version. Raises StoreError."""
    import pyarrow.parquet as pq

    try:
        pointer = json.loads(store.read(_pointer(place)))
        if (pointer["format"], pointer["by"]) == (FORMAT, _versions()):
            data = store.read(f"manifests/{pointer['manifest']}.parquet")
            if hashlib.sha256(data).hexdigest() == pointer["manifest"]:
                return pq.read_table(io.BytesIO(data), schema=schema())
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, replaced just now, or damaged
        pass
    return schema().empty_table()


def save(store: Store, place: str, rows: pa.Table, files: int) -> None:
    """Keeps the rows of a place in place of those before. Raises StoreError."""
    import pyarrow.parquet as pq

    before = _named(store, place)
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    store.replace(f"manifests/{digest}.parquet", buffer.getvalue())  # also a damaged one
    pointer = {"format": FORMAT, "place": place, "by": _versions(), "manifest": digest, "files": files}
    store.replace(_pointer(place), json.dumps(pointer, sort_keys=True).encode())
    if before not in (None, digest):
        store.delete(f"manifests/{before}.parquet")


def as_they_were(rows: pa.Table, listing: Listing) -> tuple[pa.Table, pa.Table]:
    """The rows whose files have not changed, and the files of the listing that have no such rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    files = pc.coalesce(rows["tar"], rows["path"]).combine_chunks()
    places = pc.index_in(files, value_set=listing.files["file"].combine_chunks())
    same = [pc.equal(rows[name], listing.files[name].take(places)) for name in ("bytes", "stamp")]
    again = pc.equal(rows["kind"], UNREADABLE)
    keep = pc.and_(pc.and_(*same), pc.invert(pc.fill_null(again, False)))
    kept = rows.filter(keep)  # where a file is gone, `keep` is null: false
    known = pc.unique(files.filter(pc.fill_null(keep, False).combine_chunks()))
    new = pc.invert(pc.is_in(listing.files["file"], value_set=known if len(known) else pa.array([], pa.binary())))
    return kept, listing.files.filter(new)


def files_of(rows: pa.Table) -> int:
    """How many files rows are of."""
    import pyarrow.compute as pc

    return int(pc.count_distinct(pc.coalesce(rows["tar"], rows["path"])).as_py())


def _pointer(place: str) -> str:
    return f"manifests/{hashlib.sha256(place.encode(errors='surrogateescape')).hexdigest()}.json"


def _named(store: Store, place: str) -> str | None:
    try:
        return str(json.loads(store.read(_pointer(place)))["manifest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _versions() -> dict[str, str | int]:
    return {"pillow": version("pillow"), "rules": RULES_VERSION}
