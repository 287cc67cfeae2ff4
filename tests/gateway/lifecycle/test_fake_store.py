"""The fake store does what a real one does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from fake_store import FakeStore

from gateway.config import keys
from gateway.config.store.local import open_local
from gateway.config.store.store import Delete, Put

COMMITS = [
    [Put("models/a", b"1")],
    [Put("models/b", b"2"), Put("overrides/a/7", b"x"), Put("status/g/a", b"not of the span")],
    [Put("models/a", b"3"), Delete("models/b")],
    [Delete("overrides/a/7")],
    [Put("policies/gateway", b"4"), Put("models/A", b"5"), Put("models/a.b", b"6")],
]


@pytest.mark.parametrize("begin", range(len(COMMITS)))
async def test_it_says_what_a_local_store_says(tmp_path, begin):
    fake = FakeStore()
    async with open_local(tmp_path / "store.db") as real, asyncio.timeout(20):
        for writes in COMMITS[:begin]:
            fake.commit(*writes)
            await real.commit(writes)
        async with (
            aclosing(fake.watch(keys.CONFIGURATION)) as said,
            aclosing(real.watch(keys.CONFIGURATION)) as told,
        ):
            assert await anext(said) == await anext(told)
            for writes in COMMITS[begin:]:
                assert fake.commit(*writes) == await real.commit(writes)
                assert await anext(said) == await anext(told)
