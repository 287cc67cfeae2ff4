"""A process that commits to a local store: `python committing.py increments|whole FILE COUNT`.

`increments` adds 1 to one entry so often. `whole` writes all of KEYS with one number in each commit, as often
as it may, and prints the number once the commit was answered.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from gateway.config.store.local import LocalStore, open_local
from gateway.config.store.store import Conflict, Expect, Put

COUNTER = "models/counter"
KEYS = tuple(f"models/{n:02}" for n in range(40))


async def increment(store: LocalStore, count: int) -> None:
    for _ in range(count):
        while True:
            entry = await store.get(COUNTER)
            assert entry is not None
            value = b"%d" % (int(entry.value) + 1)
            with contextlib.suppress(Conflict):
                await store.commit([Put(COUNTER, value)], [Expect(COUNTER, entry.revision)])
                break


async def write_whole(store: LocalStore, count: int) -> None:
    entry = await store.get(KEYS[0])
    first = int(entry.value) + 1 if entry else 0
    for number in range(first, first + count):
        await store.commit([Put(key, b"%d" % number) for key in KEYS])
        print(number, flush=True)


async def main() -> None:
    job, file, count = sys.argv[1:]
    async with open_local(Path(file)) as store:
        await {"increments": increment, "whole": write_whole}[job](store, int(count))


if __name__ == "__main__":
    asyncio.run(main())
