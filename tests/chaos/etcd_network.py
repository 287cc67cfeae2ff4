"""An etcd in a network namespace of its own, which can be reached over two links: one for gateways, which can
be made to drop every packet both ways, and one for everybody else.

Packets are dropped by sending them to an Ethernet address that nobody has: unlike a link that is down, that
tells nobody anything, and it needs no module of the kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest
from etcd_process import START_LIMIT_S, EtcdProcess

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "02:00:00:00:00:99"


class EtcdNetwork:
    """`with` makes it, and removes it. Needs to be root; skips where it may not."""

    def __init__(self) -> None:
        number = os.getpid()
        self.namespace = f"cg{number}"
        net = f"10.{200 + number % 50}.{number // 50 % 250}"
        # {link: (its address here, that in the namespace)}
        self._links = {"gw": (f"{net}.1", f"{net}.2"), "op": (f"{net}.5", f"{net}.6")}
        self.for_gateways = self._links["gw"][1]
        self.for_operators = self._links["op"][1]

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            pytest.skip("there is no `ip` (Debian: iproute2)")
        made = subprocess.run(["ip", "netns", "add", self.namespace], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        try:
            for link, (here, there) in self._links.items():
                near, far = self._ends(link)
                _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.namespace)
                _ip("addr", "add", f"{here}/30", "dev", near)
                _ip("link", "set", near, "up")
                _ip("-n", self.namespace, "addr", "add", f"{there}/30", "dev", far)
                _ip("-n", self.namespace, "link", "set", far, "up")
            _ip("-n", self.namespace, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)  # its links go with it

    def drop(self) -> None:
        """Packets between gateways and etcd are lost from now on."""
        (here, there), (near, far) = self._links["gw"], self._ends("gw")
        _ip("neigh", "replace", there, "lladdr", NOBODY, "dev", near, "nud", "permanent")
        _ip("-n", self.namespace, "neigh", "replace", here, "lladdr", NOBODY, "dev", far, "nud", "permanent")

    def mend(self) -> None:
        (here, there), (near, far) = self._links["gw"], self._ends("gw")
        _ip("neigh", "del", there, "dev", near)
        _ip("-n", self.namespace, "neigh", "del", here, "dev", far)

    def _ends(self, link: str) -> tuple[str, str]:
        """Of a link's interfaces, the one here and the one in the namespace."""
        return f"{self.namespace}{link}0", f"{self.namespace}{link}1"


class NetworkedEtcd(EtcdProcess):
    """In the namespace of a network; `endpoint` is where operators reach it."""

    def __init__(self, folder: Path, network: EtcdNetwork) -> None:
        super().__init__(folder)
        self._network = network
        program = folder / "etcd-in-namespace"
        program.write_text(f'#!/bin/sh\nexec ip netns exec {network.namespace} {self._binary} "$@"\n')
        program.chmod(0o755)
        self._binary = str(program)
        self.flags = ["--listen-client-urls", f"http://0.0.0.0:{self.port}"]

    @property
    def endpoint(self) -> str:
        return f"{self._network.for_operators}:{self.port}"

    @property
    def url_for_gateways(self) -> str:
        return f"etcd://{self._network.for_gateways}:{self.port}/crossgate"

    def wait_healthy(self) -> None:
        limit_s = time.monotonic() + START_LIMIT_S
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(f"http://{self.endpoint}/health", timeout=2) as reply:
                    if json.load(reply)["health"] == "true":
                        return
            except (OSError, ValueError):
                assert time.monotonic() < limit_s, "etcd does not become healthy"
            time.sleep(0.02)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
