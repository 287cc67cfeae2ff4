"""Real etcd processes on free ports of the loopback interface, and what can happen to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

START_LIMIT_S = 30.0
ROOT_PASSWORD = "the-root-password"


def etcd_binary() -> str:
    """The one that CROSSGATE_TEST_ETCD names, or that of the PATH. Skips where there is none; fails in CI,
    where there must be one.
    """
    chosen = os.environ.get("CROSSGATE_TEST_ETCD")
    binary = shutil.which(chosen or "etcd")
    if binary is not None:
        return binary
    if chosen:
        pytest.fail(f"CROSSGATE_TEST_ETCD is {chosen}: there is no such program")
    reason = "there is no etcd on the PATH: install it (Debian: apt-get install etcd-server)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class EtcdRefused(Exception):
    """Its message is etcd's answer."""


@dataclass(frozen=True)
class Tls:
    """PEM files. The server asks its clients for a certificate of `ca`."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True)
class Member:
    """How a process is known to the others of its cluster."""

    name: str
    peer_port: int


class EtcdProcess:
    """Started by `with`; `stop` and `start` keep its data and its ports. Nothing waits on the loop's thread
    but `with` itself: the other methods that wait are coroutines.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tls: Tls | None = None,
        auth: bool = False,
        members: Sequence[Member] = (),
        index: int = 0,
        flags: Iterable[str] = (),
    ) -> None:
        """With `auth`, the user root has ROOT_PASSWORD and authentication is switched on."""
        self._binary = etcd_binary()
        self._folder = folder
        self._tls = tls
        self._auth = auth
        self._members = list(members) or [Member("one", free_port())]
        self._me = self._members[index]
        self.flags = list(flags)
        self._process: subprocess.Popen[bytes] | None = None
        self._health_port = free_port()
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.at("crossgate")

    def at(self, prefix: str) -> str:
        return f"etcd://{self.endpoint}/{prefix}"

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_healthy()
            if self._auth:
                self._switch_auth_on()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    async def start(self) -> None:
        """On the ports and with the data that it had."""
        self.launch()
        await asyncio.to_thread(self.wait_healthy)

    async def stop(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        await asyncio.to_thread(self._process.wait)
        self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def compact(self, revision: int | None = None) -> None:
        """Up to a revision, or all that there is; done when it returns."""
        if revision is None:
            status = await asyncio.to_thread(self.post, "maintenance/status", {})
            revision = int(status["header"]["revision"])
        try:
            await asyncio.to_thread(self.post, "kv/compaction", {"revision": revision, "physical": True})
        except EtcdRefused as error:
            if "has been compacted" not in str(error):
                raise

    async def everything(self, prefix: str = "crossgate") -> dict[str, bytes]:
        """What etcd itself says is below a prefix: {key without the prefix: value}."""
        start, end = f"/{prefix}/".encode(), f"/{prefix}0".encode()
        request = {"key": _base64(start), "range_end": _base64(end)}
        reply = await asyncio.to_thread(self.post, "kv/range", request)
        found = {}
        for kv in reply.get("kvs", ()):
            key = base64.b64decode(kv["key"]).removeprefix(start).decode()
            found[key] = base64.b64decode(kv.get("value", ""))
        return found

    def post(self, path: str, request: dict[str, Any], token: str = "") -> Any:
        """Call etcd through its JSON gateway."""
        headers = {"Authorization": token} if token else {}
        http = urllib.request.Request(
            f"http://{self.endpoint}/v3/{path}", json.dumps(request).encode(), headers
        )
        try:
            with _opener().open(http, timeout=10) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                raise EtcdRefused(error.read().decode()) from None

    def root_token(self) -> str:
        token: str = self.post("auth/authenticate", {"name": "root", "password": ROOT_PASSWORD})["token"]
        return token

    def add_user(self, name: str, password: str, prefix: str = "", permission: str = "READWRITE") -> None:
        """One with a role of the same name that may use a prefix; none without a prefix."""
        token = self.root_token()
        self.post("auth/user/add", {"name": name, "password": password}, token)
        self.post("auth/role/add", {"name": name}, token)
        if prefix:
            self.permit(name, prefix, permission)
        self.post("auth/user/grant", {"user": name, "role": name}, token)

    def permit(self, role: str, prefix: str, permission: str = "READWRITE") -> None:
        keys = {"key": _base64(f"/{prefix}/".encode()), "range_end": _base64(f"/{prefix}0".encode())}
        self.post(
            "auth/role/grant", {"name": role, "perm": {"permType": permission, **keys}}, self.root_token()
        )

    def forbid(self, role: str, prefix: str) -> None:
        keys = {"key": _base64(f"/{prefix}/".encode()), "range_end": _base64(f"/{prefix}0".encode())}
        self.post("auth/role/revoke", {"role": role, **keys}, self.root_token())

    def launch(self) -> None:
        """Start the process; it is not ready yet."""
        scheme = "https" if self._tls else "http"
        peers = ",".join(f"{each.name}=http://127.0.0.1:{each.peer_port}" for each in self._members)
        command = [
            self._binary,
            *("--name", self._me.name, "--data-dir", str(self._folder / self._me.name)),
            *("--listen-client-urls", f"{scheme}://{self.endpoint}"),
            *("--advertise-client-urls", f"{scheme}://{self.endpoint}"),
            *("--listen-peer-urls", f"http://127.0.0.1:{self._me.peer_port}"),
            *("--initial-advertise-peer-urls", f"http://127.0.0.1:{self._me.peer_port}"),
            *("--initial-cluster", peers, "--listen-metrics-urls", f"http://127.0.0.1:{self._health_port}"),
            # Elections take 0.2 s, and the shortest lease is 1 s.
            *("--heartbeat-interval", "20", "--election-timeout", "200", "--snapshot-count", "1000"),
            *("--log-level", "error", "--logger", "zap"),
            *self.flags,
        ]
        if self._tls:
            files = ("--cert-file", self._tls.cert, "--key-file", self._tls.key)
            command += [*map(str, files), "--trusted-ca-file", str(self._tls.ca), "--client-cert-auth"]
        with (self._folder / f"{self._me.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_healthy(self) -> None:
        assert self._process is not None
        limit_s = time.monotonic() + START_LIMIT_S
        while True:
            with contextlib.suppress(OSError, ValueError):
                url = f"http://127.0.0.1:{self._health_port}/health"
                with _opener().open(url, timeout=2) as reply:
                    if json.load(reply)["health"] == "true":
                        return
            if self._process.poll() is not None or time.monotonic() > limit_s:
                log = (self._folder / f"{self._me.name}.log").read_text(errors="replace")
                pytest.fail(f"etcd does not become healthy:\n{log[-2000:]}")
            time.sleep(0.02)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _switch_auth_on(self) -> None:
        self.post("auth/user/add", {"name": "root", "password": ROOT_PASSWORD})
        self.post("auth/role/add", {"name": "root"})
        self.post("auth/user/grant", {"user": "root", "role": "root"})
        self.post("auth/enable", {})


class EtcdCluster:
    """Three members. `with` starts and ends them."""

    def __init__(self, folder: Path) -> None:
        members = [Member(f"member{number}", free_port()) for number in range(3)]
        self.members = [EtcdProcess(folder, members=members, index=index) for index in range(3)]

    @property
    def url(self) -> str:
        return f"etcd://{','.join(each.endpoint for each in self.members)}/crossgate"

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.launch()
            for member in self.members:
                member.wait_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()


def free_port() -> int:
    """Not of those that the system gives to outgoing connections: a process that is started again later
    would find it taken.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(10_000, first // 2), first)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
