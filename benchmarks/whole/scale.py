"""Photographs at scale: the plan of a million made-up ones, and surveys of many real files, first and again.

    python -m benchmarks.whole.scale [--count 20000] [--rows 1000000] [--photographs FOLDER ...] [--cpus 2]

The rows are a manifest's, without files; a process of its own plans their crops and draws batches. The files are small
JPEGs and PNGs, cut at random from real photographs, in three levels of folders; the same in tars; and both as objects
of a real S3 server on loopback. Each is surveyed three times, by Ray's tasks, which is started before: the first time,
again, and after one file was added, one damaged and one replaced. Beside it the bare work: to decode and digest some of
the files in a loop.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, facts, photographs, write
from benchmarks.common.process import workers
from benchmarks.whole.scale_rows import measured
from lic_codec.photographs import digest
from orchestrator.photographs.photos import load_rgb
from orchestrator.photographs.picture import Unfit, decode
from orchestrator.photographs.survey import Keeping, Survey, survey
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from orchestrator.sweep.surveying import in_tasks
from testing.servers import SeaweedFS

if TYPE_CHECKING:
    import pyarrow as pa

SIDE, MINIMUM_SIDE = 128, 64
A_FOLDER = 100  # files in a folder of the third level; ten of these in one of the second
A_TAR = 1000  # members
BARE = 500  # files that the bare loop decodes


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--count", type=count, default=20_000, help="real files")
    add("--rows", type=count, default=1_000_000, help="made-up rows")
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER", help="that the files are cut from")
    add("--cpus", type=count, default=len(os.sched_getaffinity(0)), help="of Ray")
    add("--results", default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    machine = facts()
    with workers(1) as pool:  # so that the peak of memory is its own
        rows = pool.submit(measured, options.rows).result()
    print(f"{rows['crops']:,} crops: planned in {rows['plan_s']:.2f} s, {rows['peak_mb']:.0f} MB", flush=True)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        root = Path(folder)
        files, tars = root / "files", root / "tars"
        make_files(files, options.count, options.photographs)
        make_tars(files, tars)
        bare = bare_rate(files)
        store = Store(root / "store")
        with SeaweedFS(root / "server") as server:
            os.environ.update(server.environment)
            bucket = f"s3://{server.bucket}"
            for name, place in (("files", files), ("tars", tars)):
                upload(place, Store(f"{bucket}/{name}"))
            places = {"folders": str(files), "tars": str(tars)}
            places |= {"s3_files": f"{bucket}/files", "s3_tars": f"{bucket}/tars"}
            with connected(num_cpus=options.cpus):
                surveys = {name: surveyed(name, place, store, options.cpus) for name, place in places.items()}
    settings = {name: getattr(options, name) for name in ("count", "rows", "cpus")}
    figures = {"settings": settings, "rows": rows, "bare_photographs_a_core_second": bare, "surveys": surveys}
    write(options.results, "scale", machine, {**figures, "goals": goals(rows, bare, surveys)})
    return 0


def make_files(root: Path, number: int, sources: Sequence[str]) -> None:
    """Different small pictures in three levels of folders, every other one a PNG."""
    chosen = photographs(sources, SIDE)[:50]
    pixels = [load_rgb(photograph) for photograph in chosen]
    draw = np.random.default_rng(0).integers
    for at in range(number):
        rgb = pixels[at % len(pixels)]
        top, left = (int(draw(0, side - SIDE + 1)) for side in rgb.shape[:2])
        box = rgb[top : top + SIDE, left : left + SIDE].copy()
        box[0, :3, 0] = list(at.to_bytes(3, "big"))  # so that no two are the same
        path = file_of(root, at)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(box).save(path)


def file_of(root: Path, at: int) -> Path:
    """The path of the file with this number."""
    folder = root / f"{at // (10 * A_FOLDER):03}" / f"{at // A_FOLDER % 10}"
    return folder / f"{at:08}.{'png' if at % 2 else 'jpg'}"


def make_tars(files: Path, tars: Path) -> None:
    """The same pictures in tars, each beside a text, as WebDataset has them."""
    tars.mkdir()
    paths = sorted(files.rglob("*.*"))
    for first in range(0, len(paths), A_TAR):
        with tarfile.open(tars / f"shard-{first // A_TAR:05}.tar", "w") as tar:
            for path in paths[first : first + A_TAR]:
                tar.add(path, path.name)
                text = tarfile.TarInfo(f"{path.stem}.txt")
                text.size = 4
                tar.addfile(text, io.BytesIO(b"text"))


def bare_rate(files: Path) -> float:
    """Photographs a core-second of reading, decoding and digesting alone."""
    paths = sorted(files.rglob("*.*"))[:BARE]
    began = time.process_time()
    for path in paths:
        rgb = decode(path.read_bytes(), MINIMUM_SIDE)
        assert not isinstance(rgb, Unfit)
        digest(rgb)
    return len(paths) / (time.process_time() - began)


def upload(folder: Path, store: Store) -> None:
    """Copies a folder to S3."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda path: store.replace(path.relative_to(folder).as_posix(), path.read_bytes()),
            [path for path in folder.rglob("*") if path.is_file()],
        ):
            pass


@dataclass
class Looking:
    """Counts what is examined and said."""

    files: int = 0
    lines: int = 0

    def examine(self, chunks: Sequence[pa.Table]) -> Iterator[pa.Table]:
        self.files += sum(chunk.num_rows for chunk in chunks)
        return in_tasks(chunks)

    def say(self, line: str) -> None:
        self.lines += 1
        print(line, flush=True)


def surveyed(name: str, place: str, store: Store, cpus: int) -> dict[str, Any]:
    """The first survey of a place, the second, and the one after three changes."""
    first, first_s, looking = timed(place, store)
    again, again_s, nothing = timed(place, store)
    assert [*again.photographs[:50]] == [*first.photographs[:50]] and again.summary == first.summary
    change(place)
    changed, changed_s, three = timed(place, store)
    figures = {
        "photographs": len(first.photographs),
        "first_s": first_s,
        "photographs_a_core_second": len(first.photographs) / first_s / cpus,
        "lines_of_progress": looking.lines,
        "second_s": again_s,
        "second_examined": nothing.files,
        "changed_s": changed_s,
        "changed_examined": three.files,
        "changed_photographs": len(changed.photographs),
        "findings": [finding.removeprefix(place) for finding in changed.findings],
    }
    print(f"{name}: {first_s:.1f} s, again {again_s:.2f} s, three changes {changed_s:.2f} s", flush=True)
    return figures


def timed(place: str, store: Store) -> tuple[Survey, float, Looking]:
    """A survey, its seconds, and what was looked at."""
    looking = Looking()
    keeping = Keeping(store=store, say=looking.say, examine=looking.examine, kept_from=1)
    began = time.monotonic()
    found = survey(place, minimum_side=MINIMUM_SIDE, unfit="skip", keeping=keeping)
    return found, time.monotonic() - began, looking


def change(place: str) -> None:
    """One file is added, one damaged and one replaced; of tars the first three in each way."""
    store = Store(place)
    names = store.list()
    if names[0].endswith(".tar"):
        data = store.read(names[0])
        store.publish("added.tar", _one_picture(1))
        store.replace(names[0], data[: len(data) // 2])
        store.replace(names[1 % len(names)], _one_picture(2))
        return
    encoded = [io.BytesIO(), io.BytesIO()]
    for colour, buffer in enumerate(encoded):
        Image.new("RGB", (SIDE, SIDE), (colour, 7, 7)).save(buffer, "PNG")
    store.publish("000/0/added.png", encoded[0].getvalue())
    store.replace(names[0], store.read(names[0])[:100])
    store.replace(names[1], encoded[1].getvalue())


def _one_picture(colour: int) -> bytes:
    picture, tar = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (colour, 9, 9)).save(picture, "PNG")
    member = tarfile.TarInfo("one.png")
    member.size = picture.getbuffer().nbytes
    picture.seek(0)
    with tarfile.open(fileobj=tar, mode="w") as opened:
        opened.addfile(member, picture)
    return tar.getvalue()


def goals(rows: dict[str, Any], bare: float, surveys: dict[str, Any]) -> dict[str, dict[str, float | str]]:
    """What was wanted of a million photographs, and of each place."""

    def most(value: float, goal: float) -> dict[str, float | str]:
        return {"value": value, "goal": goal, "at": "most"}

    found = {
        "plan_s": most(rows["plan_s"], 5.0),
        "start_s": most(rows["manifest_read_s"] + rows["chosen_s"] + rows["plan_s"], 10.0),
        "peak_mb": most(rows["peak_mb"], 1000.0),
        "sent_to_a_trial_mb": most(rows["sent_to_a_trial_bytes"] / 1e6, 1.0),
        "batch_ms_median": most(rows["batch_ms_median"], 2.0),
        "batch_ms_mean": most(rows["batch_ms_mean"], 2.0),
    }
    for name, figures in surveys.items():
        found[f"{name}_second_s"] = most(figures["second_s"], 10.0)
        found[f"{name}_second_examined"] = most(figures["second_examined"], 0)
        found[f"{name}_changed_examined"] = most(figures["changed_examined"], 3)
        if not name.startswith("s3"):  # the server has its share of these cores
            share = figures["photographs_a_core_second"] / bare
            found[f"{name}_share_of_bare_decoding"] = {"value": share, "goal": 0.5, "at": "least"}
    return found


if __name__ == "__main__":
    sys.exit(exit_code(main))
