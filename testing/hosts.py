"""Hosts of a test's own on this machine: network namespaces with addresses and host names, on one bridge.

They share disk and process ids. Root and Debian's iproute2 are needed: see `missing`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

NAMES = Path("/etc/netns")  # a file in NAME there is what `ip netns exec NAME` shows in its place in /etc


def missing() -> str | None:
    """Why hosts can't be made here; None: they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is missing: apt-get install iproute2"
    return None


def needed(why: str | None) -> None:
    """Skips the test for want of what it needs on this machine; in CI, which has to have it, the test fails."""
    if why is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


class Hosts:
    """While the context lasts: hosts that reach each other and, by `gateway`, this machine.

    Args:
        names: host names.
    """

    def __init__(self, *names: str) -> None:
        tag, net = secrets.token_hex(3), secrets.randbelow(200) + 20
        self.gateway = f"10.213.{net}.1"
        self.addresses = {name: f"10.213.{net}.{number}" for number, name in enumerate(names, 11)}
        self._bridge = f"b{tag}"
        self._spaces = {name: f"{name}-{tag}" for name in names}
        self._links = {name: f"v{tag}{number}" for number, name in enumerate(names)}
        self._made = ExitStack()

    def __enter__(self) -> Self:
        with self._made:
            _ip("link", "add", self._bridge, "type", "bridge")
            self._made.callback(_ip, "link", "del", self._bridge)
            _ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for name in self.addresses:
                self._make(name)
            self._made = self._made.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._made.close()

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """What runs a command on a host."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
        return ["ip", "netns", "exec", self._spaces[name], *named, *arguments]

    def cut(self, name: str) -> None:
        """Pulls the cable: nothing reaches the host any more, and nobody hears that it is gone."""
        _ip("link", "set", self._links[name], "down")

    def mend(self, name: str) -> None:
        _ip("link", "set", self._links[name], "up")

    def _make(self, name: str) -> None:
        space, link = self._spaces[name], self._links[name]
        _ip("netns", "add", space)
        self._made.callback(_ip, "netns", "del", space)
        names = NAMES / space
        names.mkdir(parents=True)
        self._made.callback(shutil.rmtree, names)
        every = {"localhost": "127.0.0.1", **self.addresses}
        (names / "hosts").write_text("".join(f"{address} {host}\n" for host, address in every.items()))
        (names / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # nobody answers: other names fail at once
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "route", "add", "default", "via", self.gateway)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
