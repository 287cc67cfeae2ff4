"""Gets the files that a gateway wants loaded, on the pool's own machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.workerpool.remote.source import read_source_path
from registry.fetching import fetch

if TYPE_CHECKING:
    from wire.frames import ServableSpec

_AT_ONCE = 4


class Sources:
    """Those of one pool. What is fetched takes a thread, and only so many do at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def resolve(self, spec: ServableSpec) -> ServableSpec:
        """Return the spec with a path on this machine, and what these files say of their content: gateways
        that want the same get the same session. A path is left as it is.

        Raises:
            FetchFailed
        """
        named = read_source_path(spec.path)
        if named is None:
            return spec
        async with self._turns:
            found = await asyncio.to_thread(fetch, *named)
        return msgspec.structs.replace(spec, path=found.path, fingerprint=found.fingerprint)
