"""Two network namespaces with one cable between them, which can be cut in different ways."""

from __future__ import annotations

import concurrent.futures
import ctypes
import itertools
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
_NUMBERS = itertools.count()
_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:00:99"


class Namespace:
    """A network namespace, and a thread that lives in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._thread = concurrent.futures.ThreadPoolExecutor(1, name, self._enter)

    def _enter(self) -> None:
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {self.name}")
        finally:
            os.close(descriptor)

    def do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it there; what it opens and which processes it starts are there too."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        self._thread.shutdown()


class CabledNamespaces:
    """`here` and `there`. Leaving the context removes them and the cable with them. Skips where this process
    may not make them.
    """

    def __init__(self) -> None:
        self._id = f"xg{os.getpid() % 100_000}n{next(_NUMBERS)}"
        net = f"10.{os.getpid() % 200 + 10}.{os.getpid() // 200 % 250}"
        self.here = Namespace(f"{self._id}h", f"{net}.1")
        self.there = Namespace(f"{self._id}t", f"{net}.2")

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            pytest.skip("there is no `ip` (Debian: apt-get install iproute2)")
        try:
            for end in (self.here, self.there):
                ip("netns", "add", end.name)
            ip("link", "add", *self._end(self.here), "type", "veth", "peer", "name", *self._end(self.there))
            for end in (self.here, self.there):
                ip("-n", end.name, "addr", "add", f"{end.address}/30", "dev", end.name)
                ip("-n", end.name, "link", "set", "lo", "up")
                ip("-n", end.name, "link", "set", end.name, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network namespaces can be made here: {error.stderr.strip()}")
        return self

    @staticmethod
    def _end(end: Namespace) -> tuple[str, ...]:
        return end.name, "netns", end.name

    def __exit__(self, *_: object) -> None:
        for end in (self.here, self.there):
            end.close()
            subprocess.run(["ip", "netns", "del", end.name], capture_output=True, check=False)

    def unplug(self) -> None:
        """Both sides see at once that there is no link."""
        ip("-n", self.there.name, "link", "set", self.there.name, "down")

    def plug(self) -> None:
        ip("-n", self.there.name, "link", "set", self.there.name, "up")

    def swallow(self) -> None:
        """What is sent is lost without a word, both ways: it goes to an address that nobody has."""
        for end, other in ((self.here, self.there), (self.there, self.here)):
            neighbour = ("neigh", "replace", other.address, "lladdr", _NOBODY, "dev", end.name)
            ip("-n", end.name, *neighbour, "nud", "permanent")

    def let_through(self) -> None:
        for end, other in ((self.here, self.there), (self.there, self.here)):
            ip("-n", end.name, "neigh", "del", other.address, "dev", end.name)

    def throttle(self, rate: str) -> None:
        """Both ways are as slow as that, with up to 0.05 s of delay, and lose what is more. Skips where the
        kernel cannot.
        """
        for end in (self.here, self.there):
            command = ["tc", "-n", end.name, "qdisc", "add", "dev", end.name, "root", "tbf", "rate", rate]
            command += ["burst", "4kb", "latency", "50ms"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                pytest.skip(f"the kernel cannot slow a link down: {result.stderr.strip()}")

    def lost_packets(self) -> int:
        """How many a throttled link has lost."""
        count = 0
        for end in (self.here, self.there):
            command = ["tc", "-s", "-n", end.name, "qdisc", "show", "dev", end.name]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            count += sum(int(found) for found in re.findall(r"dropped (\d+)", said))
        return count


def ip(*arguments: str) -> None:
    """Raises subprocess.CalledProcessError."""
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
