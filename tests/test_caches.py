"""Folders for caches: the user's own, or one that can be used, and one line that names the variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import caches
from orchestrator.caches import CacheError, cache_root, settle_caches
from orchestrator.spec.load import load_spec

ROOT = Path(__file__).parents[1]
NOBODY = 61234  # a user id without an entry in passwd


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home folder and temporary folder, and no variables."""
    for name in (caches.XDG, "MPLCONFIGDIR", "TRITON_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in (("HOME", "home"), ("TMPDIR", "temporary")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    # what is set by the code under test is put back as well
    for name in (caches.XDG, "MPLCONFIGDIR", "TRITON_HOME", "USER"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


def test_caches_are_in_the_user_s_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*settle_caches()] == []
    assert cache_root() == tmp_path / "home" / ".cache" / "lic-distillery"
    monkeypatch.setenv(caches.XDG, str(tmp_path / "elsewhere"))
    assert [*settle_caches()] == [] and cache_root() == tmp_path / "elsewhere" / "lic-distillery"
    assert load_spec(ROOT / "jobs/specs/quickstart.yaml").resolved(ROOT).node_cache.folder == str(cache_root())


def unusable(kind: str, tmp_path: Path) -> str:
    """A folder that nobody can write to, root neither."""
    if kind == "a file":
        (tmp_path / "file").touch()
        return str(tmp_path / "file")
    return {"not there": "/proc/none", "read-only": "/sys"}[kind]


@pytest.mark.parametrize("kind", ["a file", "not there", "read-only"])
@pytest.mark.parametrize("name", ["HOME", caches.XDG])
def test_where_they_cannot_be_is_one_line_and_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    given = unusable(kind, tmp_path)
    monkeypatch.setenv(name, given)
    own = tmp_path / "temporary" / f"lic-distillery-caches-{os.getuid()}"
    instead = f"cannot hold caches; they are in {own} (set XDG_CACHE_HOME to a folder that can be written)"
    assert [*settle_caches()] == [f"{name}: {given!r} {instead}"]
    assert cache_root() == own / "lic-distillery"
    assert os.environ[caches.XDG] == str(own) and own.stat().st_mode & 0o777 == 0o700
    assert [*settle_caches()] == []  # settled


def test_another_s_folder_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it could have put anything there."""
    monkeypatch.setenv("HOME", "/proc/none")
    own = tmp_path / "temporary" / f"lic-distillery-caches-{os.getuid()}"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    with pytest.raises(CacheError, match=r"^TMPDIR: .* is not this user's alone, .*; set XDG_CACHE_HOME$"):
        cache_root()
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(CacheError, match="not this user's alone"):
        cache_root()


# In a namespace of users of its own, where files belong to whom they did.
STRANGER = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
can_be_a_stranger = pytest.mark.skipif(
    subprocess.run([*STRANGER, "true"], capture_output=True).returncode != 0, reason="no user namespaces here"
)


@pytest.mark.slow
@can_be_a_stranger
def test_a_user_without_an_entry_in_passwd_gets_what_libraries_ask_for(tmp_path: Path) -> None:
    script = (
        "import getpass; from pathlib import Path; from orchestrator.caches import settle_caches\n"
        "lines = [*settle_caches()]\n"
        "import torch, deepspeed, mlflow, matplotlib, ray\n"
        "print(getpass.getuser(), Path.home().is_dir(), *lines)"
    )
    done = subprocess.run(
        [*STRANGER, sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    own = f"{tmp_path}/lic-distillery-caches-{NOBODY}"
    said = f"{NOBODY} True HOME: None cannot hold caches; they are in {own} (set XDG_CACHE_HOME to a folder that can be"
    assert done.stdout.splitlines()[-1].startswith(said)


@pytest.mark.slow
@can_be_a_stranger
def test_a_sweep_of_a_user_without_a_home_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    """As far as its plan, which has all that a sweep looks at first; with no place for temporary files, no further."""
    places = [f"results={tmp_path}/runs", f"store={tmp_path}/store", "trials=0"]
    command = [
        *STRANGER,
        sys.executable,
        "jobs/sweep_feds.py",
        *(word for place in places for word in ("--set", place)),
    ]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.startswith("HOME: None cannot hold caches; ")
    assert done.stderr.count("\n") == 1 and "trials: 0 is not allowed" in done.stderr
    own = tmp_path / f"lic-distillery-caches-{NOBODY}"
    own.chmod(0o777)
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == f"TMPDIR: {own} is not this user's alone, so no caches go there; set XDG_CACHE_HOME\n"
