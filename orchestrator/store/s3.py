"""Objects below a prefix of an S3 bucket: the only module that uses fsspec and boto3.

Conditional writes use boto3, since s3fs has none. Credentials and endpoint come from the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION) or the AWS chain, never from a URL.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypedDict

from orchestrator.store.errors import Stamped, StoreError, Version

if TYPE_CHECKING:
    from s3fs import S3FileSystem

SOMEONE_ELSE_WON = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
NOT_THERE = ("NoSuchKey", "NotFound", "404")
AWAY_S = 150.0  # how long requests to a server that does not answer are repeated
PAUSE_S = 5.0  # at most, between two tries
S3_CONFIG = {
    "retries": {"max_attempts": 10, "mode": "standard"},
    "connect_timeout": 10,
    "read_timeout": 30,
    "max_pool_connections": 32,
}
CLOCK_S = 15 * 60.0  # S3 refuses requests that were signed so long ago, or ahead of its time
BODY_TRIES = 8  # for an object whose transfer breaks off or whose checksum is wrong


class _Metadata(TypedDict):
    HTTPHeaders: dict[str, str]


class _GetAnswer(TypedDict):
    """What is used of boto3's answer to `get_object`; the names are S3's."""

    ETag: str
    LastModified: datetime
    ResponseMetadata: _Metadata


@dataclass(frozen=True)
class Prefix:
    """A bucket, and the prefix of all names in it, as a store's backend; for the methods see `Store`."""

    url: str  # s3://bucket/prefix

    def read(self, name: str, *, checksum: bool) -> bytes:
        return self._get(name, checksum=checksum)[0]

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        # S3's checksums are of whole objects
        return self._get(name, checksum=False, Range=f"bytes={offset}-{offset + length - 1}")[0] if length else b""

    def read_stamped(self, name: str) -> Stamped:
        data, answer = self._get(name)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age_s = (now - answer["LastModified"]).total_seconds()
        return Stamped(data=data, tag=answer["ETag"], age_s=max(0.0, age_s))

    def exists(self, name: str) -> bool:
        with _faults(self.url):
            try:
                return bool(_s3fs().info(self._path(name))["type"] == "file")  # isfile answers every error with False
            except FileNotFoundError:
                return False

    def publish(self, name: str, data: bytes) -> str | None:
        return self._put(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes) -> None:
        self._put(name, data)

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        return self._put(name, data, IfMatch=tag)

    def versions(self, prefix: str) -> dict[str, Version]:
        root = self.url.removeprefix("s3://")
        with _faults(self.url):
            try:
                infos = _s3fs().find(self._path(prefix) if prefix else root, detail=True)
            except FileNotFoundError as error:
                if _no_bucket(error):  # nothing in it would hide a wrong name
                    raise
                return {}
        # SeaweedFS keeps a folder whose last object was deleted, and s3fs lists it.
        found = {path: info for path, info in infos.items() if info["type"] == "file"}
        return {
            path.removeprefix(f"{root}/"): Version(int(found[path]["size"]), str(found[path]["ETag"]))
            for path in sorted(found)
        }

    def delete(self, name: str) -> None:
        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            _boto3_client().delete_object(Bucket=bucket, Key=key)

    def _path(self, name: str) -> str:
        return f"{self.url.removeprefix('s3://')}/{name}"

    def _bucket_and_key(self, name: str) -> tuple[str, str]:
        bucket, _, key = self._path(name).partition("/")
        return bucket, key

    def _get(self, name: str, *, checksum: bool = True, **part: str) -> tuple[bytes, _GetAnswer]:
        """The object and the whole answer.

        Uses boto3, since s3fs sends two requests (HEAD, GET) and does not repeat a read whose checksum is wrong.
        botocore repeats a request that fails before the first byte of its body; this method one that fails after it.

        Args:
            part: `Range`, for a part of it.
        """
        from botocore.exceptions import FlexibleChecksumError, ReadTimeoutError, ResponseStreamingError

        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            for attempt in range(BODY_TRIES):
                try:
                    answer = _boto3_client(checksum).get_object(Bucket=bucket, Key=key, **part)
                    return answer["Body"].read(), answer
                except (FlexibleChecksumError, ReadTimeoutError, ResponseStreamingError):
                    if attempt == BODY_TRIES - 1:
                        raise
                    time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))
        raise AssertionError("unreachable")

    def _put(self, name: str, data: bytes, **condition: str) -> str | None:
        """The new object's tag, or None if the condition does not hold."""
        from botocore.exceptions import ClientError

        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            try:
                return str(_boto3_client().put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"])
            except ClientError as error:
                if condition and (_is(error, SOMEONE_ELSE_WON) or ("IfMatch" in condition and _is(error, NOT_THERE))):
                    return None
                raise


# Clients do not survive a fork, so each process makes its own. They are kept while the environment that they were made
# in stays the same.
_clients: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()


def _client(kind: str) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # hash(): the secret itself stays out of every key, repr and traceback
    identity = hash((os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")))
    key = (kind, os.getpid(), endpoint, identity)
    with _lock:
        if key not in _clients:
            # Endpoints other than AWS seldom have a host name for each bucket: address by path there.
            addressing = {"s3": {"addressing_style": "path"}} if endpoint else {}
            config = {**S3_CONFIG, **addressing}
            if kind == "boto3 without checksums":
                config["response_checksum_validation"] = "when_required"
            _clients[key] = (_make_s3fs if kind == "s3fs" else _make_boto3)(config)
        return _clients[key]


def _make_s3fs(config: dict[str, object]) -> S3FileSystem:
    from aiobotocore.session import AioSession
    from s3fs import S3FileSystem

    session = _patient(AioSession())
    system = S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=config, session=session)
    system.retries = 1  # its own retries give up too early when a server is away
    return system


def _make_boto3(config: dict[str, object]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    return boto3.session.Session(botocore_session=_patient(Session())).client("s3", config=Config(**config))


def _patient(session: Any) -> Any:
    """The session, whose clients then wait for a server that is away."""
    session.get_component("event_emitter").register_first("needs-retry.s3", _while_away)
    return session


def _while_away(
    response: Any,
    caught_exception: Any,
    attempts: int,
    request_dict: dict[str, Any],  # Any: botocore's own request, of which it promises no types
    **_: Any,
) -> float | bool | None:
    """For a request without an answer: seconds until the next try, or False for no more. None: botocore decides.

    botocore's own retries have a quota that all threads of a client share; 16 threads use it up in 25 s.
    """
    from botocore.exceptions import ConnectionError, HTTPClientError

    silent = isinstance(caught_exception, (ConnectionError, HTTPClientError))
    if not silent and (response is None or response[0].status_code not in (502, 503, 504)):
        return None
    now = time.monotonic()
    if now - request_dict["context"].setdefault("lic_away_since", now) >= AWAY_S:
        return False
    return random.uniform(0.5, 1.0) * min(PAUSE_S, 0.25 * 2**attempts)


def _s3fs() -> S3FileSystem:
    return _client("s3fs")


def _boto3_client(checksum: bool = True) -> Any:
    return _client("boto3" if checksum else "boto3 without checksums")


@contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turns errors of S3 libraries into StoreError, one line. FileNotFoundError passes unless the bucket is missing."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if _is(error, NOT_THERE):
            raise FileNotFoundError(f"{url}: {_code(error)}") from error
        raise _store_error(url, error) from error
    except BotoCoreError as error:
        raise StoreError(f"{url}: {' '.join(str(error).split())}") from error
    except ValueError as error:  # botocore's, of an endpoint that is no URL
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise StoreError(f"{url}: AWS_ENDPOINT_URL is not allowed: http://HOST:PORT or https://HOST") from error
    except FileNotFoundError as error:
        if _no_bucket(error):
            raise _store_error(url, error.__cause__) from error
        raise
    except PermissionError as error:  # s3fs's
        raise _store_error(url, error.__cause__ or error) from error
    except OSError as error:  # s3fs wraps unknown errors in OSError
        raise StoreError(f"{url}: {' '.join(str(error).split())}") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is(error: Any, names: tuple[str, ...]) -> bool:
    """Compares the code or the status: an answer's text has no checksum, so the code may be damaged."""
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return _code(error) != "NoSuchBucket" and (_code(error) in names or status in names)


def _store_error(url: str, error: Any) -> StoreError:
    code = _code(error) if hasattr(error, "response") else "403"
    if code == "NoSuchBucket":
        return StoreError(f"{url}: the bucket does not exist; create it first")
    if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "403"):
        ahead_s = _clock_ahead_s(error)
        if abs(ahead_s) >= CLOCK_S:
            way = "ahead of" if ahead_s > 0 else "behind"
            return StoreError(f"{url}: this machine's clock is {abs(ahead_s) / 60:.0f} min {way} the server's; set it")
        return StoreError(f"{url}: access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the bucket")
    return StoreError(f"{url}: {' '.join(str(error).split())}")


def _no_bucket(error: FileNotFoundError) -> bool:
    """Whether s3fs raises it because there is no such bucket."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket"


def _clock_ahead_s(error: Any) -> float:
    """Seconds by which the clock that requests are signed with is ahead of the server's, as its answer tells.

    An answer to HEAD has no code, so that a clock that is off looks like a wrong key.
    """
    from botocore.compat import get_current_datetime

    date = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return 0.0
    return float((get_current_datetime(remove_tzinfo=False) - parsedate_to_datetime(date)).total_seconds())
