"""Where this machine's caches are: below XDG_CACHE_HOME or ~/.cache, or in the temporary folder where that cannot be.

A container's user often has no entry in passwd and no home folder, or one that is read-only. Then libraries fail one by
one, in the processes of a trial.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

OWN = "lic-distillery"
XDG = "XDG_CACHE_HOME"


class CacheError(RuntimeError):
    """No folder for caches can be used; one line that names the variable."""


def cache_root() -> Path:
    """The folder for caches, which exists and can be written.

    Raises:
        CacheError: neither that of the environment nor one in the temporary folder can be used.
    """
    wanted = _wanted()
    return wanted / OWN if wanted is not None and _writable(wanted / OWN) else _fallback() / OWN


def default_folder() -> Path:
    """The same by the environment alone, whether it can be used or not."""
    return (_wanted() or Path(tempfile.gettempdir()) / _own_name()).absolute() / OWN


def settle_caches() -> Iterator[str]:
    """Looks at the folders for caches, and gives this process and those that it starts usable ones.

    Yields:
        A line for each variable that names what cannot be used.

    Raises:
        CacheError: nothing can be used.
    """
    wanted = _wanted()
    if wanted is None or not _writable(wanted / OWN):
        folder = _fallback()
        given = os.environ.get(XDG)
        where = f"{XDG}: {given!r}" if given else f"HOME: {os.environ.get('HOME')!r}"
        yield f"{where} cannot hold caches; they are in {folder} (set {XDG} to a folder that can be written)"
        os.environ[XDG] = str(folder)
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
        os.environ.setdefault("TRITON_HOME", str(folder))
    if _home() is None:
        os.environ["HOME"] = str(_fallback())  # libraries ask for it on import
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", str(os.getuid()))  # getpass.getuser looks here first, and fails without


def _home() -> Path | None:
    try:
        home = Path.home()
        return home if home.is_dir() else None
    except (RuntimeError, OSError):  # no entry in passwd, or a folder that may not be looked at
        return None


def _wanted() -> Path | None:
    """What the environment says; None: it has no place for caches."""
    given = os.environ.get(XDG)
    if given:
        return Path(given)
    home = _home()
    return None if home is None else home / ".cache"


def _writable(folder: Path) -> bool:
    """Whether the folder exists, or was made, and takes a file: a mount's being read-only shows in no permission."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _own_name() -> str:
    return f"{OWN}-caches-{os.getuid()}"


def _fallback() -> Path:
    """This user's own folder in the temporary folder. What is in it is trusted, so nobody else may have made it."""
    try:
        folder = Path(tempfile.gettempdir()) / _own_name()
        folder.mkdir(mode=0o700, exist_ok=True)
        made = folder.lstat()
    except OSError as error:
        raise CacheError(f"TMPDIR: no folder for caches: {error.strerror or error}; set {XDG}") from None
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or made.st_mode & 0o077 or not _writable(folder):
        raise CacheError(f"TMPDIR: {folder} is not this user's alone, so no caches go there; set {XDG}")
    return folder
