"""An etcd in a network namespace of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from etcd_process import EtcdProcess
from network_namespaces import Cable, Namespace

if TYPE_CHECKING:
    from pathlib import Path


class NetworkedEtcd(EtcdProcess):
    """It is reached over two cables: `to_gateways`, and one for everybody else, where `endpoint` is. `with`
    makes its network too. Skips where this process may not make one.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.flags = ["--listen-client-urls", f"http://0.0.0.0:{self.port}"]
        self._network = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as network:
            self._namespace = network.enter_context(Namespace())
            self.to_gateways = Cable(None, self._namespace)
            self._to_others = Cable(None, self._namespace)
            super().__enter__()
            self._network = network.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        with self._network:
            super().__exit__(*failure)

    @property
    def endpoint(self) -> str:
        return f"{self._to_others.far.address}:{self.port}"

    @property
    def url_for_gateways(self) -> str:
        return f"etcd://{self.to_gateways.far.address}:{self.port}/crossgate"

    def launch(self) -> None:
        self._namespace.do(super().launch)

    def wait_healthy(self) -> None:
        self._namespace.do(super().wait_healthy)
