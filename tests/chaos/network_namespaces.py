"""Network namespaces, and cables between them that can be cut in different ways."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import itertools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")
_NUMBERS = itertools.count()
_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:00:99"


class Namespace:
    """A network namespace, and a thread that lives in it. `with` makes it, and removes it and the cables that
    end in it. Skips where this process may not make one.
    """

    def __init__(self) -> None:
        self.name = f"xg{os.getpid() % 100_000}n{next(_NUMBERS)}"
        self._thread = concurrent.futures.ThreadPoolExecutor(1, self.name, self._enter)

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            pytest.skip("there is no `ip` (Debian: apt-get install iproute2)")
        with _skip_where_refused():
            _ip("netns", "add", self.name)
            _ip("-n", self.name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

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


@dataclass(frozen=True)
class End:
    """Of a cable; in this process's own namespace where it names none."""

    namespace: Namespace | None
    device: str
    address: str

    def run(self, program: str, *arguments: str) -> str:
        """Return what `ip` or `tc` says of this end's namespace. Raises subprocess.CalledProcessError."""
        where = () if self.namespace is None else ("-n", self.namespace.name)
        done = subprocess.run([program, *where, *arguments], capture_output=True, text=True, check=True)
        return done.stdout


class Cable:
    """It is there as long as the namespaces that it ends in. Skips where this process may not lay one."""

    def __init__(self, near: Namespace | None, far: Namespace) -> None:
        number = next(_NUMBERS)
        name = f"xg{os.getpid() % 100_000}c{number}"
        net, first = f"10.{os.getpid() % 200 + 10}.{os.getpid() // 200 % 250}", number % 63 * 4
        self.near = End(near, f"{name}a", f"{net}.{first + 1}")
        self.far = End(far, f"{name}b", f"{net}.{first + 2}")
        with _skip_where_refused():
            peer = ("peer", "name", self.far.device, "netns", far.name)
            self.near.run("ip", "link", "add", self.near.device, "type", "veth", *peer)
            for end in (self.near, self.far):
                end.run("ip", "addr", "add", f"{end.address}/30", "dev", end.device)
                end.run("ip", "link", "set", end.device, "up")

    def unplug(self) -> None:
        """Both sides see at once that there is no link."""
        self.far.run("ip", "link", "set", self.far.device, "down")

    def plug(self) -> None:
        self.far.run("ip", "link", "set", self.far.device, "up")

    def swallow(self) -> None:
        """What is sent is lost without a word, both ways: it goes to an Ethernet address that nobody has.
        Unlike a link that is down, that tells nobody anything; and it needs no module of the kernel.
        """
        for end, other in self._ways():
            neighbour = ("neigh", "replace", other.address, "lladdr", _NOBODY, "dev", end.device)
            end.run("ip", *neighbour, "nud", "permanent")

    def let_through(self) -> None:
        for end, other in self._ways():
            end.run("ip", "neigh", "del", other.address, "dev", end.device)

    def throttle(self, rate: str) -> None:
        """Both ways are as slow as that, with up to 0.05 s of delay, and lose what is more. Skips where the
        kernel cannot.
        """
        for end, _ in self._ways():
            limit = ("tbf", "rate", rate, "burst", "4kb", "latency", "50ms")
            with _skip_where_refused():
                end.run("tc", "qdisc", "add", "dev", end.device, "root", *limit)

    def lost_packets(self) -> int:
        """How many a throttled link has lost."""
        count = 0
        for end, _ in self._ways():
            said = end.run("tc", "-s", "qdisc", "show", "dev", end.device)
            count += sum(int(found) for found in re.findall(r"dropped (\d+)", said))
        return count

    def _ways(self) -> tuple[tuple[End, End], tuple[End, End]]:
        return (self.near, self.far), (self.far, self.near)


@contextlib.contextmanager
def _skip_where_refused() -> Iterator[None]:
    try:
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"`{' '.join(error.cmd)}` is refused here: {error.stderr.strip()}")


def _ip(*arguments: str) -> None:
    """Raises subprocess.CalledProcessError."""
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
