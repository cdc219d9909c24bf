"""Objects by name in a local folder or an S3 bucket.

Publishing is create-only and atomic: on `file://` by a temporary file and `os.link`, on `s3://` by a conditional put
(`If-None-Match: *`). `replace_if` only replaces the version of an object that was read: on `s3://` by `If-Match`, on
`file://` under a lock of the folder.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path, PurePosixPath

from orchestrator.store.errors import Stamped, StoreError, Version
from orchestrator.store.folder import Folder
from orchestrator.store.place import local_folder
from orchestrator.store.s3 import Prefix


class Store:
    """A root under which objects have relative names such as `features/x/ab12.st`. Any process can unpickle it.

    Methods that write raise StoreError if the object cannot be written, ValueError for a name that is not relative.

    Args:
        url: a path, file:///path or s3://bucket/prefix.
        read_only: methods that write raise StoreError, and nothing is written to learn a folder's clock.

    Raises:
        StoreError: another kind of URL.
    """

    def __init__(self, url: str | os.PathLike[str], *, read_only: bool = False) -> None:
        text = os.fspath(url)
        if not text:
            raise StoreError("'': a store is a path, file:// or s3://, and this is nothing")
        if "\0" in text:
            raise StoreError(f"{text!r}: no path has such characters")
        if "://" not in text:
            try:
                text = f"file://{Path(text).expanduser().absolute()}"
            except RuntimeError:
                raise StoreError(f"{text}: ~ is not known here; set HOME, or give the whole path") from None
        scheme, _, rest = text.partition("://")
        if scheme not in ("file", "s3"):
            raise StoreError(f"{scheme}://...: a store is a path, file:// or s3:// (others have no create-only write)")
        if scheme == "s3" and ("@" in rest or not rest.partition("/")[0]):
            raise StoreError("s3://...: expected s3://BUCKET/PREFIX, with the credentials in the environment")
        if scheme == "file" and not rest.startswith("/"):
            raise StoreError(f"{text}: a file:// URL holds an absolute path")
        self.url, self._read_only = f"{scheme}://{rest.rstrip('/')}", read_only

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, part: str) -> Store:
        return Store(f"{self.url}/{_checked(part)}", read_only=self._read_only)

    def reading(self) -> Store:
        """The same store, opened for reading only."""
        return Store(self.url, read_only=True)

    @property
    def folder(self) -> Path | None:
        """The local folder that holds the objects of a store on `file://`; None on S3."""
        return local_folder(self.url)

    @property
    def _backend(self) -> Folder | Prefix:
        return Prefix(self.url) if self.folder is None else Folder(self.folder, read_only=self._read_only)

    @property
    def _writable(self) -> Folder | Prefix:
        if self._read_only:
            raise StoreError(f"{self.url}: opened for reading only")
        return self._backend

    def read(self, name: str, *, checksum: bool = True) -> bytes:
        """The object's bytes. Raises FileNotFoundError, StoreError.

        Without `checksum` S3's own is not checked: a third less work, for those who check a digest anyway.
        """
        return self._backend.read(_checked(name), checksum=checksum)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """A part of the object's bytes, fewer if it ends before. Raises FileNotFoundError, StoreError."""
        return self._backend.read_range(_checked(name), offset, length)

    def read_stamped(self, name: str) -> Stamped:
        """The object with its tag and age. Raises FileNotFoundError, StoreError.

        The age is by the store's clock. A folder's is learned by writing a file there; a store that is open for reading
        only goes by this machine's clock.
        """
        return self._backend.read_stamped(_checked(name))

    def local_path(self, name: str) -> Path | None:
        """The file that holds an object on `file://`; None on S3."""
        return None if self.folder is None else self.folder / _checked(name)

    def exists(self, name: str) -> bool:
        """Whether there is such an object. Raises StoreError."""
        return self._backend.exists(_checked(name))

    def publish(self, name: str, data: bytes) -> str | None:
        """Creates the object and returns its tag; None if there is one by this name already.

        On S3 None may also mean that a request of ours was repeated because its answer was lost: then the object that
        exists is ours.
        """
        return self._writable.publish(_checked(name), data)

    def replace(self, name: str, data: bytes) -> None:
        """Writes the object; a reader sees all of the old bytes or all of the new ones."""
        self._writable.replace(_checked(name), data)

    def replace_if(self, name: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it still has this tag, and returns its new tag; None if it has another one.

        On S3 None may also mean that the answer to a request of ours was lost: read the object to learn which.
        """
        return self._writable.replace_if(_checked(name), data, tag)

    def check_conditional_writes(self) -> None:
        """Raises StoreError if the server ignores the condition of a conditional write: some do."""
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
        """Name -> bytes of all objects below the folder `prefix`, sorted; empty if there is no such folder."""
        return {name: version.bytes for name, version in self.versions(prefix).items()}

    def versions(self, prefix: str = "") -> dict[str, Version]:
        """Name -> version of all objects below the folder `prefix`, sorted; empty if there is no such folder."""
        return self._backend.versions(_checked(prefix) if prefix else "")

    def list(self, prefix: str = "") -> list[str]:
        """Names of all objects below the folder `prefix`, sorted; empty if there is no such folder."""
        return [*self.sizes(prefix)]

    def delete(self, name: str) -> None:
        """Removes an object; one that does not exist is ignored."""
        self._writable.delete(_checked(name))


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "/".join(parts) != name.rstrip("/"):
        raise ValueError(f"{name!r} is not a relative object name")
    return "/".join(parts)
