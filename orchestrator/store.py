"""Objects by name in a local folder or an S3 bucket: the only module that speaks fsspec and boto3.

Publishing is create-only and atomic, on `file://` by a temporary file and `os.link`, on `s3://` by a conditional put
(`If-None-Match: *`), which s3fs cannot do. Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION) or the AWS chain, never from a URL.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3fs import S3FileSystem

SOMEONE_ELSE_WON = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
S3_CONFIG = {"retries": {"max_attempts": 8, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60}


class StoreError(RuntimeError):
    """The store cannot be used: unreachable, refused, no such bucket. One line, without credentials."""


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

    def read(self, name: str) -> bytes:
        """The object's bytes. Raises FileNotFoundError, StoreError."""
        if self._local:
            return self._path(name).read_bytes()
        with _faults(self.url):
            return bytes(_s3fs().cat_file(self._s3_path(name)))

    def exists(self, name: str) -> bool:
        if self._local:
            return self._path(name).is_file()
        with _faults(self.url):
            return bool(_s3fs().isfile(self._s3_path(name)))

    def publish(self, name: str, data: bytes) -> bool:
        """Create the object whole, or leave the one that is there. True if it is ours.

        On S3 False may also follow a request of our own that was repeated because its answer was lost: what is there is
        then ours all the same.
        """
        if self._local:
            return self._write(name, data, overwrite=False)
        return self._put(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes) -> None:
        """Write the object whole; a reader sees the old bytes or the new ones."""
        if self._local:
            self._write(name, data, overwrite=True)
        else:
            self._put(name, data)

    def list(self, prefix: str = "") -> list[str]:
        """Names of all objects below the folder `prefix`, sorted; none if there is no such folder."""
        if self._local:
            root = Path(self.url.removeprefix("file://") or "/")
            top = self._path(prefix) if prefix else root
            files = (Path(folder) / file for folder, _, names in os.walk(top) for file in names if not _temporary(file))
            return sorted(file.relative_to(root).as_posix() for file in files)
        root_path = self.url.removeprefix("s3://")
        with _faults(self.url):
            try:
                found = _s3fs().find(self._s3_path(prefix) if prefix else root_path)
            except FileNotFoundError:
                return []
        return sorted(path.removeprefix(f"{root_path}/") for path in found)

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

    def _put(self, name: str, data: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        bucket, key = self._bucket_and_key(name)
        with _faults(self.url):
            try:
                _boto3_client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
            except ClientError as error:
                if condition and str(error.response.get("Error", {}).get("Code")) in SOMEONE_ELSE_WON:
                    return False
                raise
        return True


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "/".join(parts) != name.rstrip("/"):
        raise ValueError(f"{name!r} is not a relative object name")
    return "/".join(parts)


def _temporary(file: str) -> bool:
    return file.startswith(".") and file.endswith(".tmp")


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
            _clients[key] = (_make_s3fs if kind == "s3fs" else _make_boto3)({**S3_CONFIG, **addressing})
        return _clients[key]


def _make_s3fs(config: dict[str, Any]) -> S3FileSystem:
    from s3fs import S3FileSystem

    return S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=config)


def _make_boto3(config: dict[str, Any]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client("s3", config=Config(**config))


def _s3fs() -> S3FileSystem:
    return _client("s3fs")


def _boto3_client() -> Any:
    return _client("boto3")


@contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turn what S3 libraries raise into StoreError, one line; FileNotFoundError passes, unless it is the bucket's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
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


def _store_error(url: str, error: Any) -> StoreError:
    code = _code(error)
    if code == "NoSuchBucket":
        return StoreError(f"{url}: the bucket does not exist; create it first")
    if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"):
        return StoreError(f"{url}: access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return StoreError(f"{url}: {' '.join(str(error).split())}")
