"""Gateways that follow a store, and what operators do to it, without the commands in between."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live_gateway import LiveGateway
from model_directory import CPU_LOOPBACK, FAST

from gateway.config.keys import STATUS, model_key
from gateway.config.store.opening import open_store
from gateway.config.store.store import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(Path(__file__).parents[1] / "store"))


class StoreGateway(LiveGateway):
    """`crossgate serve --store`, whose last good state lies in `state`."""

    def __init__(self, url: str, log: Path, state: Path, **settings: Any) -> None:
        super().__init__(Path("unused"), log, **settings)
        at = next(i for i, each in enumerate(self._command) if each.startswith("--models="))
        self._command[at : at + 1] = [f"--store={url}", f"--state-folder={state}", "--name=g"]

    def readiness(self) -> dict[str, Any]:
        return json.loads(self.get("/readyz")[1])

    def notes(self) -> str:
        return "\n".join(self.readiness()["notes"])


def loopback(folder: Path, *, options: dict[str, Any] | None = None, **document: Any) -> dict[str, Any]:
    """A document of one version that answers INPUT0, FP32 [batch, width], as OUTPUT0."""
    folder.mkdir(parents=True, exist_ok=True)
    instance = {**CPU_LOOPBACK, "options": options or {}}
    return {"versions": {"1": {"source": folder.as_uri()}}, "instances": [instance], **FAST, **document}


class Operator:
    """Writes documents as somebody does who uses no command of ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def put(self, **models: dict[str, Any] | bytes) -> int:
        return await self.write({model_key(model): value for model, value in models.items()})

    async def write(self, values: dict[str, dict[str, Any] | bytes], *, lease_s: float | None = None) -> int:
        async with open_store(self._url) as store:
            lease = 0 if lease_s is None else await store.grant(lease_s)
            return await store.commit(
                [
                    Put(key, value if isinstance(value, bytes) else json.dumps(value).encode(), lease)
                    for key, value in values.items()
                ]
            )

    async def delete(self, *keys: str) -> int:
        async with open_store(self._url) as store:
            return await store.commit([Delete(key) for key in keys])

    async def status(self, model: str) -> dict[str, Any]:
        """What gateway `g` says of a model, empty where it says nothing."""
        async with open_store(self._url) as store:
            entry = await store.get(f"{STATUS.start}g/{model}")
            return json.loads(entry.value) if entry is not None else {}


def files_of(path: Path) -> Sequence[Path]:
    """A local store's file, and those that SQLite keeps beside it."""
    return [each for suffix in ("", "-wal", "-shm") if (each := Path(f"{path}{suffix}")).exists()]


class LocalPlace:
    """A store in one file. Away, it lies under another name."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"
        self._away = folder / "away"
        self._away.mkdir()
        self.url = str(self._path)

    async def leave(self) -> None:
        for file in files_of(self._path):
            file.rename(self._away / file.name)

    async def come_back(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for file in files_of(self._away / self._path.name):
                file.rename(self._path.parent / file.name)


class EtcdPlace:
    def __init__(self, process: Any) -> None:
        self._process = process
        self.url = process.url

    async def leave(self) -> None:
        await self._process.stop()

    async def come_back(self) -> None:
        await self._process.start()
