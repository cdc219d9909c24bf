"""The store, on a folder and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta

import botocore.auth
import botocore.compat
import pytest

from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path) -> Store:
    if request.param == "file":
        return Store(tmp_path / "a store")
    request.getfixturevalue("s3_environment")
    server = request.getfixturevalue("s3_server")
    return Store(f"s3://{server.bucket}/{uuid.uuid4().hex}")


def test_objects_come_and_go(store):
    assert not store.exists("a/b")
    assert store.list() == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b")
    assert store.publish("a/b", b"one")
    assert not store.publish("a/b", b"two")
    assert store.read("a/b") == b"one"
    store.replace("a/b", b"three")
    assert store.read("a/b") == b"three"
    store.replace("c", b"")
    assert store.exists("c") and store.exists("a/b") and not store.exists("a")
    assert store.list() == ["a/b", "c"]
    assert store.list("a") == ["a/b"]
    assert store.list("nothing/here") == []
    assert (store / "a").read("b") == b"three"
    assert (store / "a").list() == ["b"]
    store.delete("a/b")
    store.delete("a/b")
    assert store.list() == ["c"] and store.list("a") == []
    store.delete("c")
    assert store.list() == []


def test_a_part_of_an_object_is_read(store):
    store.replace("a/b", bytes(range(200)))
    assert store.read_range("a/b", 10, 5) == bytes(range(10, 15))
    assert store.read_range("a/b", 195, 50) == bytes(range(195, 200))
    assert store.read_range("a/b", 3, 0) == b""
    with pytest.raises(FileNotFoundError):
        store.read_range("a/c", 0, 1)


def test_a_listing_tells_what_was_written_again(store):
    store.replace("a/b", b"one")
    store.replace("a/c", b"one")
    before = store.versions("a")
    assert store.versions() == before and [version.bytes for version in before.values()] == [3, 3]
    store.replace("a/b", b"two")
    after = store.versions("a")
    assert [name for name in after if after[name] != before[name]] == ["a/b"]


def test_a_large_object_survives(store):
    data = bytes(range(256)) * 40_000
    assert store.publish("large", data)
    assert store.read("large") == data


def test_one_thread_wins_a_race(store):
    for race in range(5):
        with ThreadPoolExecutor(8) as pool:
            wins = list(
                pool.map(lambda writer, race=race: None is not store.publish(f"race/{race}", b"%d" % writer), range(8))
            )
        assert sum(wins) == 1
        assert store.read(f"race/{race}") == b"%d" % wins.index(True)
    assert len(store.list()) == 5  # and nothing temporary is left


def _race(store: Store, writer: int, barrier, answers) -> None:
    for race in range(5):
        barrier.wait(60)
        answers.put((race, writer, store.publish(f"race/{race}", b"%d" % writer * 100_000) is not None))


def _forked_races(store: Store) -> list[tuple[int, int, bool]]:
    store.replace("warm", b"")
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    for writer in range(3):
        context.Process(target=_race, args=(store, writer, barrier, answers), daemon=True).start()
    return [answers.get(timeout=60) for _ in range(15)]


def test_one_process_wins_a_race(store):
    """Forked, after the parent has used its own client: children make theirs."""
    # By a parent that does nothing else: a fork of this process, with Ray in it, may find a lock that nobody releases.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        results = pool.submit(_forked_races, store).result(timeout=120)
    for race in range(5):
        winners = [writer for which, writer, won in results if which == race and won]
        assert len(winners) == 1
        assert store.read(f"race/{race}") == b"%d" % winners[0] * 100_000


def test_pickles_as_its_url(store):
    store.replace("a", b"1")
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
    assert copy == store and copy.read("a") == b"1"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "./a"])
def test_names_stay_below_the_root(store, name):
    with pytest.raises(ValueError, match="not a relative object name"):
        store.publish(name, b"")


def test_paths_become_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    monkeypatch.chdir("/")
    assert store.url == f"file://{tmp_path}/here"
    assert store == Store(f"file://{tmp_path}/here/")


@pytest.mark.parametrize(
    "url", ["memory://x", "gs://b/x", "s3://", "s3:///x", "s3://key:hush@bucket/x", "file://relative"]
)
def test_urls_that_are_no_store(url):
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_endpoint_that_is_no_url_is_one_line(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "notaurl")
    with pytest.raises(StoreError, match=r"^s3://bucket/x: AWS_ENDPOINT_URL is not allowed: http://HOST:PORT"):
        Store("s3://bucket/x").list()


def test_what_cannot_be_listed_is_not_taken_for_empty(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="file is not a folder, or in one"):
        Store(tmp_path / "file").list()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreError, match="symbolic links"):
        Store(tmp_path / "loop").sizes()
    assert Store(tmp_path / "none").list() == []


def test_another_user_s_folder_is_one_line_and_not_empty(tmp_path):
    """As with a store of two users whose files have umask 077; root becomes somebody else for the moment."""
    folder, me = tmp_path / "theirs", os.geteuid()
    store = Store(folder)
    store.publish("a/b", b"one")
    folder.chmod(0)
    try:
        if me == 0:
            os.seteuid(65534)
        for call in (
            store.list,
            lambda: store.exists("a/b"),
            lambda: store.read("a/b"),
            lambda: store.publish("c", b""),
        ):
            with pytest.raises(StoreError, match=r"^file://[^\n]*: Permission denied$"):
                call()
    finally:
        os.seteuid(me)
        folder.chmod(0o700)


def test_a_missing_bucket_is_one_line(s3_environment):
    with pytest.raises(StoreError, match="s3://no-such-bucket/x: the bucket does not exist") as caught:
        Store("s3://no-such-bucket/x").read("a")  # a put would not do: SeaweedFS makes the bucket, as AWS does not
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="s3://no-such-bucket/x: the bucket does not exist"):
        Store("s3://no-such-bucket/x").list()


@pytest.mark.parametrize(("minutes", "line"), [(60, "60 min ahead of"), (-60, "60 min behind")])
def test_a_clock_that_is_off_is_one_line(s3_server, s3_environment, monkeypatch, minutes, line):
    """A signature holds the time; HEAD's answer says 403 and nothing else."""
    now = botocore.compat.get_current_datetime
    for module in (botocore.auth, botocore.compat):
        monkeypatch.setattr(module, "get_current_datetime", lambda *a, **k: now(*a, **k) + timedelta(minutes=minutes))
    store = Store(f"s3://{s3_server.bucket}/x")
    for act in (
        lambda: store.publish("a", b""),
        lambda: store.read("ready"),
        lambda: store.list(),
        lambda: store.exists("a"),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        assert str(caught.value) == f"{store.url}: this machine's clock is {line} the server's; set it"


def test_wrong_credentials_are_one_line_without_them(s3_server, s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    store = Store(f"s3://{s3_server.bucket}/x")
    for act in (lambda: store.publish("a", b""), lambda: store.read("ready"), lambda: store.list()):
        with pytest.raises(StoreError, match="access denied") as caught:
            act()
        assert "hush-hush" not in repr(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("orchestrator.store.s3.AWAY_S", 0.0)
    with pytest.raises(StoreError, match=r"s3://sweep/x: .*127\.0\.0\.1:9") as caught:
        Store("s3://sweep/x").publish("a", b"")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_waited_for_by_however_many_threads(seaweed, monkeypatch):
    server = seaweed()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("orchestrator.store.s3.PAUSE_S", 0.05)  # as many tries in these seconds as in minutes otherwise
    store = Store(f"s3://{server.bucket}/away")
    store.publish("a", b"content")
    assert store.list() == ["a"]
    server.kill()
    with ThreadPoolExecutor(16) as pool:
        reads = [pool.submit(store.read, "a") for _ in range(12)] + [pool.submit(store.list) for _ in range(4)]
        time.sleep(5)
        assert not any(read.done() for read in reads)
        server.start()
        assert [read.result() for read in reads] == [b"content"] * 12 + [["a"]] * 4


class Heedless(Store):
    """A store whose server ignores one of the conditions."""

    def __init__(self, url: str, ignored: str) -> None:
        super().__init__(url)
        self._ignored = ignored

    def publish(self, name: str, data: bytes) -> str | None:
        tag = super().publish(name, data)
        return "tag" if self._ignored == "If-None-Match" else tag

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        return "tag" if self._ignored == "If-Match" else super().replace_if(name, data, tag)


def test_a_store_that_heeds_conditions_passes_the_check_and_keeps_no_probe(store):
    store.check_conditional_writes()
    assert store.list() == []


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_a_condition_is_named(tmp_path, ignored):
    store = Heedless(str(tmp_path), ignored)
    with pytest.raises(StoreError) as raised:
        store.check_conditional_writes()
    assert str(raised.value) == (
        f"file://{tmp_path}: the server ignores {ignored}; the feature cache needs conditional writes"
    )
    assert store.list() == []
