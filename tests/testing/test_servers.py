"""The fault proxy does what it says, and the S3 server has the properties that the feature cache relies on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from orchestrator.store.store import Store
from testing import servers
from testing.servers import FaultProxy, SeaweedFS, free_ports

BUCKET = "sweep"


@pytest.fixture
def through(fault_proxy: FaultProxy, s3_server: SeaweedFS) -> Any:
    """A client that goes through the proxy and asks once."""
    return s3_server.client(endpoint=fault_proxy.endpoint, attempts=1)


@pytest.fixture
def direct(s3_server: SeaweedFS) -> Any:
    return s3_server.client(attempts=1)


def test_a_port_that_was_given_out_is_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reserved even while nothing listens on it."""
    given, other = free_ports(2)
    offered = iter([given, given, other, given, *servers.PORTS])
    monkeypatch.setattr(random.SystemRandom, "choice", lambda self, ports: next(offered))
    assert not {given, other} & set(free_ports(3))


def put(client: Any, key: str, body: bytes = b"x", **condition: str) -> str:
    """The new ETag, or the code of the refusal."""
    try:
        return client.put_object(Bucket=BUCKET, Key=key, Body=body, **condition)["ETag"]
    except ClientError as error:
        return error.response["Error"]["Code"]


def get(client: Any, key: str) -> bytes:
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def refusal(act: Callable[[], Any]) -> str | None:
    """The code with which S3 refused the call, or None."""
    try:
        act()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def race(act: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(act, range(8)))


def race_to_put(client: Any, key: str, **condition: str) -> list[str]:
    """Eight writers put their own numbers at the same moment; the answer that each gets."""
    return race(lambda writer: put(client, key, b"%d" % writer, **condition))


def test_without_rules_the_proxy_is_transparent(fault_proxy, through, direct, s3_server):
    assert put(through, "t/a b+ü", b"abc", IfNoneMatch="*").startswith('"')
    assert put(through, "t/a b+ü", b"abc", IfNoneMatch="*") == "PreconditionFailed"
    assert get(through, "t/a b+ü") == get(direct, "t/a b+ü") == b"abc"
    assert through.get_object(Bucket=BUCKET, Key="t/a b+ü", Range="bytes=1-1")["Body"].read() == b"b"
    assert [entry["Key"] for entry in through.list_objects_v2(Bucket=BUCKET, Prefix="t/")["Contents"]] == ["t/a b+ü"]
    assert refusal(lambda: get(through, "t/none")) == "NoSuchKey"
    through.delete_object(Bucket=BUCKET, Key="t/a b+ü")
    log = fault_proxy.requests()
    assert [(request["method"], request["status"]) for request in log] == [
        ("PUT", 200), ("PUT", 412), ("GET", 200), ("GET", 206), ("GET", 200), ("GET", 404), ("DELETE", 204),
    ]  # fmt: skip
    assert all(request["fault"] is None and request["status"] == request["server_status"] for request in log)
    assert log[0]["path"] == f"/{BUCKET}/t/a b+ü" and log[0]["headers"] == {"If-None-Match": "*"}
    assert (log[0]["request_bytes"], log[2]["response_bytes"]) == (3, 3)
    assert log[3]["headers"] == {"Range": "bytes=1-1"} and "prefix" in log[4]["query"]
    files = [path for path in fault_proxy.folder.iterdir() if not path.name.startswith("mitmproxy-")]
    for secret in (s3_server.secret_key, "Signature", "Credential"):
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_large_bodies_of_concurrent_clients(fault_proxy, s3_server):
    bodies = [os.urandom(30_000_000) for _ in range(3)]

    def there_and_back(which: int) -> bool:
        client = s3_server.client(endpoint=fault_proxy.endpoint, attempts=1, read_timeout=30)
        put(client, f"large/{which}", bodies[which])
        return get(client, f"large/{which}") == bodies[which]

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(there_and_back, range(3)))
    assert {request["request_bytes"] + request["response_bytes"] for request in fault_proxy.requests()} == {30_000_000}


def test_the_environment_leads_store_and_s3fs_through_the_proxy(fault_proxy, s3_environment):
    assert os.environ["AWS_ENDPOINT_URL"] == s3_environment["AWS_ENDPOINT_URL"] == fault_proxy.endpoint
    store = Store(f"s3://{BUCKET}/store")
    store.replace("a", b"1")  # boto3
    assert store.read("a") == b"1"  # s3fs
    seen = [request["method"] for request in fault_proxy.requests() if request["path"] == f"/{BUCKET}/store/a"]
    assert seen[0] == "PUT" and seen[-1] == "GET"


def test_a_share_of_requests_is_told_to_slow_down(fault_proxy, through, direct):
    def refused(**rules: Any) -> list[int]:
        fault_proxy.behave(**rules)
        return [which for which in range(50) if put(through, f"slow/{which}") == "SlowDown"]

    first = refused(error_share=0.2)
    assert 5 <= len(first) <= 15
    assert refused(error_share=0.2) == first != refused(error_share=0.2, seed=1)
    log = fault_proxy.requests()
    assert Counter((request["fault"], request["status"], request["server_status"]) for request in log[:50]) == {
        ("error", 503, None): len(first),
        (None, 200, 200): 50 - len(first),
    }
    fault_proxy.behave(error_share=1)
    assert put(through, "slow/new") == "SlowDown" and refusal(lambda: get(through, "slow/0")) == "SlowDown"
    assert refusal(lambda: through.head_object(Bucket=BUCKET, Key="slow/0")) == "503"  # a HEAD has no body to say more
    assert refusal(lambda: get(direct, "slow/new")) == "NoSuchKey"


def test_only_some_requests_and_only_some_times(fault_proxy, through):
    fault_proxy.behave(error_share=1, only=r"^PUT .*/only/[ab]", times=1)
    assert [put(through, f"only/{key}") == "SlowDown" for key in "aabbc"] == [True, False, True, False, False]
    assert get(through, "only/a") == b"x"


def test_a_get_is_cut_in_the_middle_of_its_body(fault_proxy, through):
    body = os.urandom(5_000_000)
    put(through, "cut", body)
    fault_proxy.behave(cut_share=1, times=1)
    stream = through.get_object(Bucket=BUCKET, Key="cut")["Body"]
    half = stream.read(len(body) // 2)
    assert half == body[: len(body) // 2]
    with pytest.raises(ResponseStreamingError, match="IncompleteRead"):
        stream.read()
    assert get(through, "cut") == body
    cut = fault_proxy.requests()[1]
    assert (cut["fault"], cut["status"], cut["server_status"]) == ("cut", 200, 200)
    assert cut["response_bytes"] == len(half)
    fault_proxy.behave(cut_share=1)
    # botocore does not miss the bytes of what it reads itself: the XML is broken, which it calls a 500 and would repeat
    assert refusal(lambda: through.list_objects_v2(Bucket=BUCKET)) == "500"


def test_a_put_is_cut_off_before_or_after_the_server_has_done_it(fault_proxy, through, direct, s3_server):
    fault_proxy.behave(cut_share=1)
    with pytest.raises(HTTPClientError):
        put(through, "before")
    assert refusal(lambda: get(direct, "before")) == "NoSuchKey"
    fault_proxy.behave(cut_after_share=1)
    with pytest.raises(HTTPClientError):
        put(through, "after")
    assert get(direct, "after") == b"x"
    with pytest.raises(HTTPClientError):
        get(through, "after")
    assert [(request["fault"], request["status"], request["server_status"]) for request in fault_proxy.requests()] == [
        ("cut", None, None), ("cut_after", None, 200), ("cut_after", None, 200),
    ]  # fmt: skip


def test_a_create_that_is_repeated_after_a_lost_answer_is_refused_its_own_object(fault_proxy, s3_server, direct):
    fault_proxy.behave(cut_after_share=1, times=1)
    client = s3_server.client(endpoint=fault_proxy.endpoint, attempts=2)
    assert put(client, "lost", b"ours", IfNoneMatch="*") == "PreconditionFailed"
    assert get(direct, "lost") == b"ours"
    assert [request["server_status"] for request in fault_proxy.requests()] == [200, 412]


def test_latency_before_the_server_is_asked_and_before_it_is_heard(fault_proxy, s3_server, direct):
    client = s3_server.client(endpoint=fault_proxy.endpoint, attempts=1, read_timeout=1)
    fault_proxy.behave(latency_s=0.3)
    start = time.monotonic()
    assert put(client, "late").startswith('"')
    assert time.monotonic() - start >= 0.3
    fault_proxy.behave(latency_s=1.8)
    with pytest.raises(ReadTimeoutError):
        put(client, "too late")
    fault_proxy.behave(answer_latency_s=1.8)
    with pytest.raises(ReadTimeoutError):
        put(client, "done, and never heard")
    deadline = time.monotonic() + 20
    while len(fault_proxy.requests()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [(request["fault"], request["status"], request["server_status"]) for request in fault_proxy.requests()] == [
        ("latency", 200, 200), ("latency", None, None), ("latency", None, 200),
    ]  # fmt: skip
    assert fault_proxy.requests()[0]["seconds"] >= 0.3
    assert refusal(lambda: get(direct, "too late")) == "NoSuchKey"
    assert get(direct, "done, and never heard") == b"x"


def test_a_share_of_requests_is_late(fault_proxy, through):
    fault_proxy.behave(latency_s=0.1, latency_share=0.2)
    for which in range(50):
        put(through, f"tail/{which}")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for request in fault_proxy.requests():
        seconds[request["fault"] == "latency"].append(request["seconds"])
    assert 5 <= len(seconds[True]) <= 15 and min(seconds[True]) >= 0.1 > min(seconds[False])


def test_one_bit_of_a_body_is_flipped(fault_proxy, through, s3_environment):
    body = os.urandom(1_000_000)
    put(through, "bit", body)
    fault_proxy.behave(corrupt_share=1)
    with pytest.raises(FlexibleChecksumError):  # botocore checks the CRC32 that it has put there itself
        get(through, "bit")
    careless = boto3.session.Session().client("s3", config=Config(response_checksum_validation="when_required"))
    got = get(careless, "bit")
    flipped = [a ^ b for a, b in zip(got, body, strict=True) if a != b]
    assert len(flipped) == 1 and flipped[0].bit_count() == 1
    assert [request["fault"] for request in fault_proxy.requests()] == [None, "corrupt", "corrupt"]


def test_a_paused_server_hangs_and_a_killed_one_keeps_what_it_acknowledged(seaweed, tmp_path):
    server = seaweed()
    with FaultProxy(server.endpoint, tmp_path) as proxy:
        client = server.client(attempts=1, read_timeout=1)
        through = server.client(endpoint=proxy.endpoint, attempts=1)
        for which in range(20):
            put(through, f"{which}", b"%d" % which * 100_000)
        server.pause()
        start = time.monotonic()
        with pytest.raises(ReadTimeoutError):
            get(client, "0")
        assert time.monotonic() - start >= 1
        server.resume()
        assert get(client, "0") == b"0" * 100_000
        server.kill()
        with pytest.raises(BotoCoreError):
            get(client, "0")
        assert refusal(lambda: get(through, "0")) == "502"
        assert proxy.requests()[-1]["server_status"] is None
        server.restart()
        for which in range(20):
            assert get(client, f"{which}") == get(through, f"{which}") == b"%d" % which * 100_000


def test_servers_are_usable_without_pytest_and_leave_no_process(tmp_path):
    script = "import sys; from testing.servers import FaultProxy, SeaweedFS; assert 'pytest' not in sys.modules"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
    proxy = FaultProxy("http://127.0.0.1:9", tmp_path / "a folder")
    with proxy:
        process = proxy._process
    assert process is not None and process.poll() is not None


def test_create_only_has_one_winner(direct):
    for number in range(3):
        answers = race_to_put(direct, f"create/{number}", IfNoneMatch="*")
        winners = [writer for writer, answer in enumerate(answers) if answer.startswith('"')]
        assert len(winners) == 1 and answers.count("PreconditionFailed") == 7
        assert get(direct, f"create/{number}") == b"%d" % winners[0]


def test_replacing_what_one_has_seen_has_one_winner(direct):
    for number in range(3):
        seen = put(direct, f"swap/{number}", b"old")
        answers = race_to_put(direct, f"swap/{number}", IfMatch=seen)
        winners = [writer for writer, answer in enumerate(answers) if answer.startswith('"')]
        assert len(winners) == 1 and answers.count("PreconditionFailed") == 7
        assert get(direct, f"swap/{number}") == b"%d" % winners[0]


def test_a_stale_etag_is_refused_and_the_current_one_accepted(direct):
    first = put(direct, "etag", b"1")
    second = put(direct, "etag", b"2")
    assert put(direct, "etag", b"3", IfMatch=first) == "PreconditionFailed"
    third = put(direct, "etag", b"3", IfMatch=second)
    assert len({first, second, third}) == 3 and get(direct, "etag") == b"3"
    assert put(direct, "etag", b"3") == third  # of the bytes alone: what must be told apart must differ
    # AWS answers NoSuchKey (404) here
    assert put(direct, "etag/missing", b"1", IfMatch=first) == "PreconditionFailed"
    assert refusal(lambda: get(direct, "etag/missing")) == "NoSuchKey"


def test_a_conditional_delete_is_honoured(direct):
    old = put(direct, "gone", b"1")
    new = put(direct, "gone", b"2")
    assert refusal(lambda: direct.delete_object(Bucket=BUCKET, Key="gone", IfMatch=old)) == "PreconditionFailed"
    answers = race(lambda _: refusal(lambda: direct.delete_object(Bucket=BUCKET, Key="gone", IfMatch=new)))
    assert Counter(answers) == {None: 1, "PreconditionFailed": 7}
    assert refusal(lambda: get(direct, "gone")) == "NoSuchKey"


def test_answers_carry_the_servers_time_in_whole_seconds(direct):
    began = int(time.time())
    put(direct, "time")
    for answer in (direct.get_object(Bucket=BUCKET, Key="time"), direct.head_object(Bucket=BUCKET, Key="time")):
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        now, written = (parsedate_to_datetime(headers[name]) for name in ("date", "last-modified"))
        assert began <= written.timestamp() <= now.timestamp() <= time.time() and written.microsecond == 0
