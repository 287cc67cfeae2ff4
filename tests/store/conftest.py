"""The stores that the contract is tested with: a file, and a real etcd."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parent))

from etcd_process import EtcdProcess
from store_home import Home

from gateway.config.store.local import open_local
from gateway.config.store.store import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalPlace:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def fresh(self) -> str:
        return str(self._folder / f"{next(self._numbers)}.db")

    async def compact(self, url: str) -> None:
        async with open_local(Path(url), kept_deletions=0) as store:
            await store.commit([Put("compaction/now", b"")])
            await store.commit([Delete("compaction/now")])


class EtcdPlace:
    def __init__(self, process: EtcdProcess) -> None:
        self._process = process
        self._numbers = count()

    def fresh(self) -> str:
        return f"{self._process.url}-{next(self._numbers)}"

    async def compact(self, url: str) -> None:
        await self._process.compact()


@pytest.fixture(scope="session")
def etcd_place(tmp_path_factory) -> Iterator[EtcdPlace]:
    """Skips where etcd is not installed; fails in CI."""
    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as process:
        yield EtcdPlace(process)


@pytest.fixture(params=["local", "etcd"])
def home(request, tmp_path) -> Home:
    """An empty store, of each kind."""
    place = LocalPlace(tmp_path) if request.param == "local" else request.getfixturevalue("etcd_place")
    return Home(place, place.fresh())


@pytest.fixture
def file(tmp_path) -> Path:
    """Where a store in a file may be; it is not there yet."""
    return tmp_path / "store.db"
