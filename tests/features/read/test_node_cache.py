"""The node's disk cache, with real processes, kills and full disks; only what a fetch would download is made up."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator.features.format.blob import Blob, DigestMismatch, FileBlob, MemoryBlob, open_file
from orchestrator.features.read.node_cache import NodeCache

ROOT = Path(__file__).resolve().parents[3]
SIZE = 64 * 1024

# What every child process starts with. Its arguments are the cache's folder and limit, and a file that each fetch adds
# a line to.
PRELUDE = """
import hashlib, os, random, resource, signal, sys, threading, time
from pathlib import Path
from orchestrator.features.format.blob import FileBlob, MemoryBlob
from orchestrator.features.read.node_cache import NodeCache

folder, limit, log = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def say(*words):  # in one write: threads say things too
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

cache = NodeCache(folder, limit, warn=lambda line: say("warned:", line))

def content(number, size):
    return random.Random(number).randbytes(size)

def get(number, size, pause=0.0):
    data = content(number, size)
    def fetch():
        with open(log, "a") as file:  # one short write with O_APPEND
            file.write(f"{number}\\n")
        time.sleep(pause)
        return data
    return cache.open(hashlib.sha256(data).hexdigest(), size, fetch)
"""


def content(number: int, size: int = SIZE) -> bytes:
    return random.Random(number).randbytes(size)


def digest(number: int, size: int = SIZE) -> str:
    return hashlib.sha256(content(number, size)).hexdigest()


class Fetches:
    """Opens numbered objects, knows which of them it fetched, and closes them in the end."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.blobs: list[Blob] = []

    def get(self, cache: NodeCache, number: int, size: int = SIZE):
        def fetch() -> bytes:
            self.numbers.append(number)
            return content(number, size)

        blob = cache.open(digest(number, size), size, fetch)
        self.blobs.append(blob)
        assert blob.size == size and blob.read_at(0, size) == content(number, size)
        return blob


@pytest.fixture
def fetches():
    fetches = Fetches()
    yield fetches
    for blob in fetches.blobs:
        blob.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a cache" / "of this node"


@pytest.fixture
def log(tmp_path) -> Path:
    (tmp_path / "fetches").touch()
    return tmp_path / "fetches"


@pytest.fixture
def start(folder, log):
    """Starts child processes; those that still run at the end are killed."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str, *, limit: int = 2**30, folder: Path = folder) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(folder), str(limit), str(log)]
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here ({mounted.stderr.strip()}); see the file size limit's test")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def said(child: subprocess.Popen[str]) -> str:
    """All that a child prints until it ends, with exit code 0."""
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return output


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_miss_is_fetched_and_then_found(folder, fetches):
    cache = NodeCache(folder, 2**30)
    assert not folder.exists()
    for number in (0, 1, 0, 1, 0):
        fetches.get(cache, number)
    fetches.get(NodeCache(folder, 2**30), 1)
    assert fetches.numbers == [0, 1]
    assert files(folder) == sorted([digest(0), digest(1)])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(path.stat().st_size < 64 for path in (folder / "locks").iterdir())


def test_any_bytes_are_read_by_many_threads(folder, fetches, tmp_path):
    data = content(0)
    (tmp_path / "elsewhere").write_bytes(data)
    for blob in (
        fetches.get(NodeCache(folder, 2**30), 0),
        fetches.get(NodeCache(folder, 1), 0),
        open_file(tmp_path / "elsewhere"),
    ):
        offsets = [random.Random(1).randrange(SIZE - 100) for _ in range(500)]
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda offset, blob=blob: blob.read_at(offset, 100), offsets))
        assert rows == [data[offset : offset + 100] for offset in offsets]
        assert bytes(blob.read_at(SIZE, 0)) == b""
        with pytest.raises(EOFError):
            blob.read_at(SIZE - 99, 100)
        blob.close()
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "nowhere")


def test_a_name_that_is_no_digest_is_refused(folder):
    for name in ("../../up", "0" * 63, "A" * 64, digest(0) + "\n"):
        with pytest.raises(ValueError, match="not a SHA-256"):
            NodeCache(folder, 2**30).open(name, 1, lambda: b"x")
    assert not folder.exists()


def test_an_object_larger_than_the_limit_stays_in_memory(folder, fetches):
    warnings: list[str] = []
    cache = NodeCache(folder, SIZE - 1, warnings.append)
    for _ in range(2):
        assert isinstance(fetches.get(cache, 0), MemoryBlob)
    assert fetches.numbers == [0, 0] and warnings == [] and not folder.exists()
    assert isinstance(fetches.get(NodeCache(folder, SIZE), 0), FileBlob)


def test_an_empty_object_is_cached(folder):
    cache, nothing = NodeCache(folder, 100), hashlib.sha256(b"").hexdigest()
    for fetch in (lambda: b"", pytest.fail):
        blob = cache.open(nothing, 0, fetch)
        assert blob.size == 0 and bytes(blob.read_at(0, 0)) == b""
        blob.close()


def test_processes_and_threads_fetch_each_object_once(folder, log, start):
    """Three processes of four threads each, all in another order."""
    code = f"""
    sys.stdin.readline()
    def work(seed):
        for number in random.Random(seed).sample(range(20), 20):
            blob = get(number, {SIZE}, pause=0.005)
            assert isinstance(blob, FileBlob) and blob.read_at(0, {SIZE}) == content(number, {SIZE})
            blob.close()
            done.append(number)
    done = []
    threads = [threading.Thread(target=work, args=(os.getpid() + i,)) for i in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    say(len(done))
    """
    children = [start(code) for _ in range(3)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [said(child) for child in children] == ["80\n"] * 3
    assert sorted(map(int, log.read_text().split())) == list(range(20))
    assert files(folder) == sorted(digest(number) for number in range(20))
    assert len(list((folder / "locks").iterdir())) <= 21


def snapshot(folder: Path) -> int | None:
    """Bytes in a folder at one instant. One listing is none; what two in a row agree on was there between them."""
    seen = []
    for _ in range(2):
        listing = set()
        for path in folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            if stat.S_ISREG(status.st_mode):
                listing.add((path.name, status.st_ino, status.st_size))
        seen.append(listing)
    return sum(size for _, _, size in seen[0]) if seen[0] == seen[1] else None


def test_the_bound_holds_at_every_moment(folder, log, start):
    """Objects of several sizes that do not fit together, by three processes of two threads each."""
    limit = 6 * SIZE
    code = f"""
    def work(seed):
        choose = random.Random(seed)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            number = choose.randrange(24)
            size = {SIZE} * (1 + number % 3) // 2
            blob = get(number, size, pause=0.002)
            assert blob.read_at(size // 2, 1000) == content(number, size)[size // 2:][:1000]
            kinds.append(type(blob))
            blob.close()
    kinds = []
    threads = [threading.Thread(target=work, args=(os.getpid() * 10 + i,)) for i in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    say(len(kinds), kinds.count(FileBlob))
    """
    folder.mkdir(parents=True)
    sizes: list[int] = []
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            size = snapshot(folder)
            if size is not None:
                sizes.append(size)
            time.sleep(0.0005)

    sampler = threading.Thread(target=sample)
    sampler.start()
    children = [start(code, limit=limit) for _ in range(3)]
    outputs = [said(child).split() for child in children]
    over.set()
    sampler.join()
    assert len(sizes) > 50
    assert limit / 2 < max(sizes) <= limit
    opened, from_disk = (sum(int(output[place]) for output in outputs) for place in (0, 1))
    assert opened > 100 and from_disk > opened / 2
    assert 24 < len(log.read_text().split()) < opened  # objects were evicted, and others were hit
    assert not [name for name in files(folder) if name.endswith(".tmp")]


def test_what_was_opened_longest_ago_goes_first(folder, fetches):
    cache = NodeCache(folder, 3 * SIZE)
    for age, number in enumerate((1, 2, 3)):
        fetches.get(cache, number)
        os.utime(folder / digest(number), (1_000_000 + age,) * 2)
    fetches.get(cache, 1)  # the oldest, until now
    fetches.get(cache, 4)
    assert files(folder) == sorted(digest(number) for number in (1, 3, 4))
    fetches.get(NodeCache(folder, 3 * SIZE), 5)
    assert files(folder) == sorted(digest(number) for number in (1, 4, 5))
    assert fetches.numbers == [1, 2, 3, 4, 5]


def test_a_full_cache_is_not_listed_for_every_miss(folder, fetches):
    """A sweep frees 1/64 of the limit at once: 10 of 640 objects here."""
    cache = NodeCache(folder, 640 * 100)
    for number in range(640):
        fetches.get(cache, number, 100)
        os.utime(folder / digest(number, 100), (number,) * 2)
    assert len(files(folder)) == 640
    for number in range(640, 650):
        fetches.get(cache, number, 100)
        assert len(files(folder)) == number - 9
    assert set(files(folder)) == {digest(number, 100) for number in range(10, 650)}


def test_a_smaller_limit_shrinks_what_an_earlier_run_left(folder, fetches):
    for number in range(8):
        fetches.get(NodeCache(folder, 2**30), number)
    cache = NodeCache(folder, 3 * SIZE)
    fetches.get(cache, 8)
    assert len(files(folder)) == 3 and digest(8) in files(folder)


@pytest.mark.parametrize("count", ["", "not a number", "0", "99999999999999999999"])
def test_a_wrong_count_of_bytes_does_not_break_the_bound(folder, fetches, count):
    """A power cut, or a user who deletes files, may leave such a count."""
    for number in range(3):
        fetches.get(NodeCache(folder, 3 * SIZE), number)
    (folder / "locks" / "folder").write_text(count)
    cache = NodeCache(folder, 3 * SIZE)
    for number in (3, 4):
        assert isinstance(fetches.get(cache, number), FileBlob)
        assert len(files(folder)) == 3


def test_an_evicted_object_stays_readable_where_it_is_open(folder, fetches, start):
    child = start(
        f"""
        blob = get(1, {SIZE})
        say("open")
        sys.stdin.readline()
        assert not (folder / hashlib.sha256(content(1, {SIZE})).hexdigest()).exists()
        assert b"".join(blob.read_at(at, 1024) for at in range(0, {SIZE}, 1024)) == content(1, {SIZE})
        say(type(blob).__name__)
        """
    )
    assert child.stdout.readline() == "open\n"
    for number in (2, 3):
        fetches.get(NodeCache(folder, 2 * SIZE), number)
    assert files(folder) == sorted([digest(2), digest(3)])
    child.stdin.write("go\n")
    assert said(child) == "FileBlob\n"


@pytest.mark.parametrize("damage", ["a bit", "cut off", "grown", "empty", "unreadable"])
def test_a_damaged_file_is_found_by_the_next_process_and_fetched_again(folder, fetches, log, start, damage):
    fetches.get(NodeCache(folder, 2**30), 0)
    path = folder / digest(0)
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[SIZE // 2] ^= 4
        path.write_bytes(data)
    elif damage == "unreadable":
        path.unlink()
        path.symlink_to(path)  # ELOOP, for root too
    else:
        path.write_bytes({"cut off": data[:-1], "grown": data + b"\0", "empty": b""}[damage])
    code = f"""
    for _ in range(2):
        blob = get(0, {SIZE})
        say(type(blob).__name__, blob.read_at(0, {SIZE}) == content(0, {SIZE}))
    """
    assert said(start(code)) == "FileBlob True\n" * 2
    assert log.read_text() == "0\n"
    assert path.read_bytes() == content(0) and files(folder) == [digest(0)]


def test_a_damaged_file_is_gone_even_if_nothing_replaces_it(folder, fetches):
    fetches.get(NodeCache(folder, 2**30), 0)
    os.truncate(folder / digest(0), SIZE - 1)
    with pytest.raises(ZeroDivisionError):
        NodeCache(folder, 2**30).open(digest(0), SIZE, lambda: bytes(1 // 0))
    assert files(folder) == []


def test_a_file_cut_off_under_a_process_that_trusts_it_is_fetched_again(folder, fetches):
    cache = NodeCache(folder, 2**30)
    fetches.get(cache, 0)
    os.truncate(folder / digest(0), SIZE - 1)
    fetches.get(cache, 0)
    assert fetches.numbers == [0, 0]


def test_a_file_is_hashed_once_by_a_process(folder, fetches):
    """Shown by its consequence: a bit that flips later is noticed only by the next process."""
    fetches.get(NodeCache(folder, 2**30), 0)
    cache = NodeCache(folder, 2**30)
    fetches.get(cache, 0)
    flipped = b"\xff" + content(0)[1:]
    (folder / digest(0)).write_bytes(flipped)
    blob = cache.open(digest(0), SIZE, pytest.fail)
    assert blob.read_at(0, SIZE) == flipped
    blob.close()


def made_file(number: int) -> str:
    return f"{digest(number)}.made-1"


class Makes(Fetches):
    """Opens what is made of numbered objects: their bytes backwards."""

    def get(self, cache: NodeCache, number: int, size: int = SIZE):
        def make() -> bytes:
            self.numbers.append(number)
            return content(number, size)[::-1]

        blob = cache.open_made(digest(number, size), "made-1", make)
        self.blobs.append(blob)
        assert blob.read_at(0, size) == content(number, size)[::-1]
        return blob


def test_what_is_made_of_an_object_is_kept_beside_it_and_within_the_limit(folder, fetches):
    makes, limit = Makes(), 3 * (SIZE + 16)
    cache = NodeCache(folder, limit)
    fetches.get(cache, 0)
    for number in (0, 1, 0, 1):
        assert isinstance(makes.get(cache, number), FileBlob)
    makes.get(NodeCache(folder, limit), 1)
    assert makes.numbers == [0, 1] and fetches.numbers == [0]
    assert files(folder) == sorted([digest(0), made_file(0), made_file(1)])
    for age, name in enumerate((made_file(1), digest(0), made_file(0))):
        os.utime(folder / name, (1_000_000 + age,) * 2)
    makes.get(NodeCache(folder, limit), 2)
    assert files(folder) == sorted([digest(0), made_file(0), made_file(2)])  # the oldest went
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) <= limit
    with pytest.raises(ValueError, match="not a SHA-256"):
        cache.open_made("../up", "made-1", lambda: b"")
    for size in (SIZE + 16, SIZE + 15):  # with its checksum it fits exactly, and not any more
        blob = makes.get(NodeCache(folder / "small", size), 3)
        assert isinstance(blob, FileBlob if size > SIZE + 15 else MemoryBlob)
        (folder / "small" / made_file(3)).unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["a bit", "of the checksum", "cut off", "grown", "empty", "short", "unreadable"])
def test_what_was_made_and_is_damaged_is_made_again(folder, damage):
    makes = Makes()
    makes.get(NodeCache(folder, 2**30), 0)
    path = folder / made_file(0)
    whole = path.read_bytes()
    data = bytearray(whole)
    data[{"a bit": SIZE // 2, "of the checksum": -1}.get(damage, 0)] ^= (
        4 if damage in ("a bit", "of the checksum") else 0
    )
    if damage == "unreadable":
        path.unlink()
        path.symlink_to(path)
    else:
        cuts = {"cut off": data[:-1], "grown": data + b"\0", "empty": b"", "short": data[:9]}
        path.write_bytes(cuts.get(damage, data))
    makes.get(NodeCache(folder, 2**30), 0)
    assert makes.numbers == [0, 0] and path.read_bytes() == whole and files(folder) == [made_file(0)]


def test_processes_make_each_file_once(folder, log, start):
    code = f"""
    def make(number):
        with open(log, "a") as file:
            file.write(f"{{number}}\\n")
        time.sleep(0.005)
        return content(number, {SIZE})[::-1]
    sys.stdin.readline()
    for number in random.Random(os.getpid()).sample(range(12), 12):
        name = hashlib.sha256(content(number, {SIZE})).hexdigest()
        blob = cache.open_made(name, "made-1", lambda: make(number))
        assert isinstance(blob, FileBlob) and blob.read_at(0, {SIZE}) == content(number, {SIZE})[::-1]
    say("done")
    """
    children = [start(code) for _ in range(2)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [said(child) for child in children] == ["done\n"] * 2
    assert sorted(map(int, log.read_text().split())) == list(range(12))
    assert files(folder) == sorted(made_file(number) for number in range(12))


def test_what_making_raises_comes_out_and_a_bad_folder_costs_the_cache_only(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="the object"):
        NodeCache(folder, 2**30, pytest.fail).open_made(digest(0), "made-1", partial(missing, "the object"))
    assert files(folder) == []
    (tmp_path / "a file").touch()
    lines: list[str] = []
    makes, cache = Makes(), NodeCache(tmp_path / "a file", 2**30, lines.append)
    for _ in range(2):
        assert isinstance(makes.get(cache, 0), MemoryBlob)
    assert makes.numbers == [0, 0] and len(lines) == 1


def missing(name: str) -> bytes:
    raise FileNotFoundError(name)


@pytest.mark.parametrize("limit", [2**30, 1], ids=["on disk", "in memory"])
def test_wrong_bytes_are_refused_and_leave_nothing(folder, fetches, limit):
    cache = NodeCache(folder, limit)
    for wrong in (content(0)[:-1], content(0) + b"\0", b"\xff" + content(0)[1:], b""):
        with pytest.raises(DigestMismatch, match=digest(0)) as caught:
            cache.open(digest(0), SIZE, partial(bytes, wrong))
        assert caught.value.actual == hashlib.sha256(wrong).hexdigest() and caught.value.size == len(wrong)
        copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
        assert (str(copy), copy.actual) == (str(caught.value), caught.value.actual)
    assert not folder.exists() or files(folder) == []
    fetches.get(cache, 0)


def test_what_a_fetch_raises_comes_out(folder, fetches):
    """An OSError of the store is not mistaken for one of the disk."""
    warnings: list[str] = []
    cache = NodeCache(folder, 2**30, warnings.append)

    def fetch() -> bytes:
        raise FileNotFoundError("the object")

    with pytest.raises(FileNotFoundError, match="the object"):
        cache.open(digest(0), SIZE, fetch)
    assert files(folder) == [] and warnings == []
    assert isinstance(fetches.get(cache, 0), FileBlob)


def test_a_process_killed_while_it_fetches_blocks_nobody(folder, log, start):
    killed = start(f"get(0, {SIZE}, pause=60)")
    await_that(lambda: log.read_text() == "0\n")
    assert [name.partition(".")[0] for name in files(folder)] == [digest(0)]  # room for it, and no object
    waiting = start(f"say('waits'); say(get(0, {SIZE}).read_at(0, {SIZE}) == content(0, {SIZE}))")
    assert waiting.stdout.readline() == "waits\n"
    time.sleep(0.2)
    assert log.read_text() == "0\n"
    killed.kill()
    assert said(waiting) == "True\n"
    assert log.read_text() == "0\n0\n"
    assert files(folder) == [digest(0)]


@pytest.mark.parametrize("event", ["open", "os.rename"])
def test_a_process_killed_before_it_writes_or_renames_leaves_nothing(folder, log, start, fetches, event):
    """Killed by an audit hook, in the system call's place, on the temporary file that it has fetched for."""
    code = f"""
    def hook(event, arguments):
        if event == {event!r} and str(arguments[0]).endswith(".tmp") and os.path.getsize(log):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    get(0, {SIZE})
    """
    child = start(code)
    assert child.wait(60) == -signal.SIGKILL
    (leftover,) = files(folder)
    assert leftover.endswith(".tmp")
    assert (folder / leftover).read_bytes() == (bytes(SIZE) if event == "open" else content(0))
    fetches.get(NodeCache(folder, 2**30), 1)  # another object's fetch sweeps too
    assert files(folder) == [digest(1)]
    fetches.get(NodeCache(folder, 2**30), 0)
    assert fetches.numbers == [1, 0]


def test_a_process_killed_in_the_middle_of_a_write_leaves_nothing(folder, start, fetches):
    """The kill follows the first byte on the disk; a child that was faster than that is tried again."""
    size = 48 * 2**20
    for _ in range(10):
        child = start(f"get(0, {size}, pause=0.2)")
        await_that(lambda: folder.exists() and any(name.endswith(".tmp") for name in files(folder)))
        (path,) = folder.glob("*.tmp")
        with path.open("rb", buffering=0) as file:
            while os.pread(file.fileno(), 8, 0) in (b"", bytes(8)):
                assert child.poll() is None
            child.kill()
            child.wait()
            if os.pread(file.fileno(), 8, size - 8) == bytes(8):
                break
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
    else:
        pytest.fail("never in the middle")
    assert files(folder) == [path.name]
    fetches.get(NodeCache(folder, 2**30), 1)
    assert files(folder) == [digest(1)]


def test_a_full_disk_costs_the_cache_and_not_the_run(small_disk, fetches):
    folder = small_disk / "cache"
    warnings: list[str] = []
    cache = NodeCache(folder, 2**30, warnings.append)
    fetches.get(cache, 0)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**14))
    assert warnings == []
    for number in (1, 2, 1):
        assert isinstance(fetches.get(cache, number), MemoryBlob)
    assert isinstance(fetches.get(cache, 0), FileBlob)
    assert fetches.numbers == [0, 1, 2, 1]
    assert len(warnings) == 1 and "\n" not in warnings[0]
    assert str(folder) in warnings[0] and "No space left on device" in warnings[0]
    assert files(folder) == [digest(0)]
    filler.unlink()
    for _ in range(2):
        assert isinstance(fetches.get(cache, 1), FileBlob)
    assert fetches.numbers == [0, 1, 2, 1, 1] and len(warnings) == 1
    assert files(folder) == sorted([digest(0), digest(1)])


def test_on_a_full_disk_nobody_waits_for_anothers_fetch(small_disk, start, log):
    code = f"""
    fetch_together = threading.Barrier(2)
    def work():
        data = content(0, {SIZE})
        def fetch():
            fetch_together.wait(20)
            return data
        say(type(cache.open(hashlib.sha256(data).hexdigest(), {SIZE}, fetch)).__name__)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    (small_disk / "filler").write_bytes(bytes(4 * 2**20 - 2**14))
    lines = said(start(code, folder=small_disk / "cache")).splitlines()
    assert sorted(lines)[:2] == ["MemoryBlob"] * 2 and len(lines) == 3 and sorted(lines)[2].startswith("warned: ")


def test_a_read_only_disk_is_read_and_not_written(small_disk, fetches):
    folder = small_disk / "cache"
    fetches.get(NodeCache(folder, 2**30), 0)
    warnings: list[str] = []
    cache = NodeCache(folder, 2**30, warnings.append)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert isinstance(fetches.get(cache, 0), FileBlob) and warnings == []
    assert isinstance(fetches.get(cache, 1), MemoryBlob)
    assert "Read-only file system" in warnings[0]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert isinstance(fetches.get(cache, 1), FileBlob)
    assert fetches.numbers == [0, 1, 1] and len(warnings) == 1


def test_a_file_size_limit_is_a_full_disk(folder, log, start):
    code = f"""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    for _ in range(2):
        blob = get(0, {SIZE})
        say(type(blob).__name__, blob.read_at(0, {SIZE}) == content(0, {SIZE}))
    say([path.name for path in folder.iterdir() if path.is_file()])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for _ in range(2):
        say(type(get(0, {SIZE})).__name__)
    """
    lines = said(start(code)).splitlines()
    assert lines.pop(0) == (
        f"warned: {folder}: File too large; reading goes on without keeping objects there: "
        "each is fetched again whenever it is opened"
    )
    assert lines == ["MemoryBlob True", "MemoryBlob True", "[]", "FileBlob", "FileBlob"]
    assert log.read_text() == "0\n" * 3


def test_a_cache_whose_folder_cannot_be_made_reads_from_memory(tmp_path, fetches, capsys):
    (tmp_path / "file").touch()
    cache = NodeCache(tmp_path / "file" / "cache", 2**30)
    for _ in range(2):
        assert isinstance(fetches.get(cache, 0), MemoryBlob)
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and "Not a directory" in output.err
    (tmp_path / "file").unlink()
    assert isinstance(fetches.get(cache, 0), FileBlob)


def test_a_folder_that_somebody_deletes_is_made_again(folder, fetches):
    cache = NodeCache(folder, 2**30)
    first = fetches.get(cache, 0)
    subprocess.run(["rm", "-r", folder], check=True)
    fetches.get(cache, 0)
    fetches.get(cache, 0)
    assert first.read_at(0, SIZE) == content(0) and fetches.numbers == [0, 0]
    first.close()


def test_downloads_in_flight_that_fill_the_limit(folder, fetches, log, start):
    """What they leave no room for stays in memory; nothing is evicted for it."""
    child = start(f"get(0, {SIZE}, pause=60)", limit=2 * SIZE)
    await_that(lambda: log.read_text() == "0\n")
    cache = NodeCache(folder, 2 * SIZE)
    fetches.get(cache, 1)
    assert isinstance(fetches.get(cache, 2, 2 * SIZE), MemoryBlob)
    assert digest(1) in files(folder)
    child.kill()
    child.wait()
    assert isinstance(fetches.get(cache, 2, 2 * SIZE), FileBlob)
    assert files(folder) == [digest(2, 2 * SIZE)]


def await_that(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
