"""Objects by name in a local folder or an S3 bucket: the only module that speaks fsspec and boto3.

Publishing is create-only and atomic, on `file://` by a temporary file and `os.link`, on `s3://` by a conditional put
(`If-None-Match: *`), which s3fs cannot do. `replace_if` writes only over the very object that was read: on `s3://` by
`If-Match`, on `file://` under a lock of the folder. Credentials and endpoint come from the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION) or the AWS chain, never from a URL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3fs import S3FileSystem

SOMEONE_ELSE_WON = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
NOT_THERE = ("NoSuchKey", "NotFound", "404")
AWAY_S = 150.0  # a server that gives no answer is waited for
PAUSE_S = 5.0  # at most, between two tries
S3_CONFIG = {
    "retries": {"max_attempts": 10, "mode": "standard"},
    "connect_timeout": 10,
    "read_timeout": 30,
    "max_pool_connections": 32,
}
BODY_TRIES = 8  # to read an object whose transfer breaks off or whose checksum is wrong
LOCK = ".lock"  # in a folder of file://


class StoreError(RuntimeError):
    """The store cannot be used: unreachable, refused, no such bucket. One line, without credentials."""


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """An object as it was at one moment."""

    data: bytes
    tag: str  # what `replace_if` compares
    age_s: float  # since it was written, by the store's own clock: those of its users need not agree


class Store:
    """A root under which objects have relative names such as `features/x/ab12.st`. Pickles as its URL."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        if "://" not in text:
            text = f"file://{Path(text).expanduser().absolute()}"
        scheme, _, rest = text.partition("://")
        if scheme not in ("file", "s3"):
            raise StoreError(f"{scheme}://...: a store is a path, file:// or s3:// (others have no create-only write)")
        if scheme == "s3" and ("@" in rest or not rest.partition("/")[0]):
            raise StoreError("s3://...: expected s3://BUCKET/PREFIX, with the credentials in the environment")
        if scheme == "file" and not rest.startswith("/"):
            raise StoreError(f"{text}: a file:// URL holds an absolute path")
        self.url = f"{scheme}://{rest.rstrip('/')}"

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, part: str) -> Store:
        return Store(f"{self.url}/{_checked(part)}")

    def read(self, name: str, *, checksum: bool = True) -> bytes:
        """The object's bytes. Raises FileNotFoundError, StoreError.

        Without `checksum` S3's own is not looked at: a third less work, for those who hold the bytes to a digest.
        """
        if self._local:
            return self._path(name).read_bytes()
        return self._get(name, checksum=checksum)[0]

    def read_stamped(self, name: str) -> Stamped:
        """The object with its tag and age. Raises FileNotFoundError, StoreError."""
        if self._local:
            path = self._path(name)
            data, written = path.read_bytes(), path.stat().st_mtime
            return Stamped(data=data, tag=_tag(data), age_s=max(0.0, self._now(path.parent) - written))
        data, answer = self._get(name)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age_s = (now - answer["LastModified"]).total_seconds()
        return Stamped(data=data, tag=answer["ETag"], age_s=max(0.0, age_s))

    def local_path(self, name: str) -> Path | None:
        """The file that holds an object on `file://`."""
        return self._path(name) if self._local else None

    def exists(self, name: str) -> bool:
        if self._local:
            return self._path(name).is_file()
        with _faults(self.url):
            try:
                return bool(_s3fs().info(self._s3_path(name))["type"] == "file")  # isfile calls every error a no
            except FileNotFoundError:
                return False

    def publish(self, name: str, data: bytes) -> str | None:
        """Create the object whole, or leave the one that is there. The tag of ours, or None.

        On S3 None may also follow a request of our own that was repeated because its answer was lost: what is there is
        then ours all the same.
        """
        if self._local:
            return _tag(data) if self._write(name, data, overwrite=False) else None
        return self._put(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes) -> None:
        """Write the object whole; a reader sees the old bytes or the new ones."""
        if self._local:
            self._write(name, data, overwrite=True)
        else:
            self._put(name, data)

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        """Write the object whole if it still is the one that was read with `tag`; its new tag, or None if it is not.

        On S3 None may also follow a request of our own whose answer was lost: see what is there.
        """
        if self._local:
            path = self._path(name)
            with self._locked(path.parent):
                try:
                    if _tag(path.read_bytes()) != tag:
                        return None
                except FileNotFoundError:
                    return None
                self._write(name, data, overwrite=True)
            return _tag(data)
        return self._put(name, data, IfMatch=tag)

    def check_conditional_writes(self) -> None:
        """Raises StoreError if the server takes a conditional write whose condition does not hold: some do."""
        name = f"probes/{uuid.uuid4().hex}"
        try:
            self.publish(name, b"1")
            again, stale = self.publish(name, b"2"), self.replace_if(name, b"3", '"0123456789abcdef0123456789abcdef"')
        finally:
            self.delete(name)
        if again or stale:
            condition = "If-None-Match" if again else "If-Match"
            raise StoreError(f"{self.url}: the server ignores {condition}; the feature cache needs conditional writes")

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Name -> bytes of all objects below the folder `prefix`, by name; none if there is no such folder."""
        if self._local:
            root = Path(self.url.removeprefix("file://") or "/")
            top = self._path(prefix) if prefix else root
            files = (Path(folder) / file for folder, _, names in os.walk(top) for file in names if not _temporary(file))
            found = {}
            for file in sorted(files):
                with suppress(FileNotFoundError):  # deleted by somebody since
                    found[file.relative_to(root).as_posix()] = file.stat().st_size
            return found
        root_path = self.url.removeprefix("s3://")
        with _faults(self.url):
            try:
                infos = _s3fs().find(self._s3_path(prefix) if prefix else root_path, detail=True)
            except FileNotFoundError:
                return {}
        # SeaweedFS keeps a folder whose last object was deleted, and s3fs finds it.
        found = {path: int(info["size"]) for path, info in infos.items() if info["type"] == "file"}
        return {path.removeprefix(f"{root_path}/"): found[path] for path in sorted(found)}

    def list(self, prefix: str = "") -> list[str]:
        """Names of all objects below the folder `prefix`, sorted; none if there is no such folder."""
        return [*self.sizes(prefix)]

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        if self._local:
            self._path(name).unlink(missing_ok=True)
            return
        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            _boto3_client().delete_object(Bucket=bucket, Key=key)

    @property
    def _local(self) -> bool:
        return self.url.startswith("file://")

    def _path(self, name: str) -> Path:
        return Path(self.url.removeprefix("file://") or "/") / _checked(name)

    def _s3_path(self, name: str) -> str:
        return f"{self.url.removeprefix('s3://')}/{_checked(name)}"

    def _bucket_and_key(self, name: str) -> tuple[str, str]:
        bucket, _, key = self._s3_path(name).partition("/")
        return bucket, key

    def _write(self, name: str, data: bytes, *, overwrite: bool) -> bool:
        target = self._path(name)
        with _disk_faults(self.url):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if overwrite:
                    temporary.replace(target)
                else:
                    os.link(temporary, target)  # fails if the target exists: the only atomic create of a whole file
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _get(self, name: str, *, checksum: bool = True) -> tuple[bytes, dict[str, Any]]:
        """The object and the answer that it came with.

        By boto3, since s3fs asks twice (HEAD, GET) and does not repeat a read whose checksum is wrong. botocore repeats
        what fails before the first byte, this what fails after it.
        """
        from botocore.exceptions import FlexibleChecksumError, ReadTimeoutError, ResponseStreamingError

        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            for attempt in range(BODY_TRIES):
                try:
                    answer = _boto3_client(checksum).get_object(Bucket=bucket, Key=key)
                    return answer["Body"].read(), answer
                except (FlexibleChecksumError, ReadTimeoutError, ResponseStreamingError):
                    if attempt == BODY_TRIES - 1:
                        raise
                    time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))
        raise AssertionError("unreachable")

    def _now(self, folder: Path) -> float:
        """Time by the clock that stamps the folder's files, which on a network disk is its server's."""
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        with _disk_faults(self.url):
            try:
                temporary.touch()
                return temporary.stat().st_mtime
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with _disk_faults(self.url):
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

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


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "/".join(parts) != name.rstrip("/"):
        raise ValueError(f"{name!r} is not a relative object name")
    return "/".join(parts)


def _temporary(file: str) -> bool:
    return file == LOCK or (file.startswith(".") and file.endswith(".tmp"))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Clients are made in the process that uses them: neither survives a fork. They are kept for as long as the environment
# they were made in stays the same.
_clients: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()


def _client(kind: str) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # hash(): the secret itself stays out of every key, repr and traceback
    identity = hash((os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")))
    key = (kind, os.getpid(), endpoint, identity)
    with _lock:
        if key not in _clients:
            # An endpoint of one's own seldom has a host name for each bucket: address by path there.
            addressing = {"s3": {"addressing_style": "path"}} if endpoint else {}
            config = {**S3_CONFIG, **addressing}
            if kind == "boto3 without checksums":
                config["response_checksum_validation"] = "when_required"
            _clients[key] = (_make_s3fs if kind == "s3fs" else _make_boto3)(config)
        return _clients[key]


def _make_s3fs(config: dict[str, Any]) -> S3FileSystem:
    from aiobotocore.session import AioSession
    from s3fs import S3FileSystem

    session = _patient(AioSession())
    system = S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=config, session=session)
    system.retries = 1  # its own ones do not wait for a server that is away
    return system


def _make_boto3(config: dict[str, Any]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    return boto3.session.Session(botocore_session=_patient(Session())).client("s3", config=Config(**config))


def _patient(session: Any) -> Any:
    """The botocore session, whose clients wait for a server that is away."""
    session.get_component("event_emitter").register_first("needs-retry.s3", _while_away)
    return session


def _while_away(
    response: Any, caught_exception: Any, attempts: int, request_dict: dict[str, Any], **_: Any
) -> float | bool | None:
    """Of a request that got no answer: seconds until the next try; False: none. None: botocore decides by itself.

    For its own tries all threads of a client share a quota, which 16 of them use up in 25 s.
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
def _disk_faults(url: str) -> Iterator[None]:
    """Turn what writing to a disk raises, such as that it is full, into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{url}: {error.strerror or error}") from error


@contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turn what S3 libraries raise into StoreError, one line; FileNotFoundError passes, unless it is the bucket's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if _is(error, NOT_THERE):
            raise FileNotFoundError(f"{url}: {_code(error)}") from error
        raise _store_error(url, error) from error
    except BotoCoreError as error:
        raise StoreError(f"{url}: {' '.join(str(error).split())}") from error
    except FileNotFoundError as error:
        if isinstance(error.__cause__, ClientError) and _code(error.__cause__) == "NoSuchBucket":
            raise _store_error(url, error.__cause__) from error
        raise
    except PermissionError as error:
        raise StoreError(f"{url}: access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except OSError as error:  # s3fs wraps what it does not know in OSError
        raise StoreError(f"{url}: {' '.join(str(error).split())}") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is(error: Any, names: tuple[str, ...]) -> bool:
    """By its code, or by its status: what names the code has no checksum, and a bit of it may be wrong."""
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return _code(error) != "NoSuchBucket" and (_code(error) in names or status in names)


def _store_error(url: str, error: Any) -> StoreError:
    code = _code(error)
    if code == "NoSuchBucket":
        return StoreError(f"{url}: the bucket does not exist; create it first")
    if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"):
        return StoreError(f"{url}: access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return StoreError(f"{url}: {' '.join(str(error).split())}")
