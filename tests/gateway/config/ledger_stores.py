"""A store whose connection breaks, or that somebody else writes to, just when a commit is on its way."""

from __future__ import annotations

from gateway.config.store.store import CommitUnclear, StoreAway


class BreakingStore:
    """Passes everything on to a real store. `before` holds one step for each of the next commits: 'lost'
    breaks the connection before the commit, 'unanswered' after it, 'late' lets the commit arrive only when
    the next one is on its way; a coroutine function runs first; None does nothing.
    """

    def __init__(self, store):
        self._store = store
        self._late = []
        self.before = []
        self.commits = 0
        self.away_after = None  # reads fail once so many commits were tried

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def get(self, key):
        if self.away_after is not None and self.commits >= self.away_after:
            raise StoreAway(f"{self._store.where}: no endpoint answers")
        return await self._store.get(key)

    async def commit(self, writes, expect=()):
        self.commits += 1
        step = self.before.pop(0) if self.before else None
        if callable(step):
            await step()
        while self._late:
            await self._store.commit(*self._late.pop(0))
        if step == "late":
            self._late.append((writes, expect))
        if step in ("lost", "late"):
            raise CommitUnclear("the connection broke")
        revision = await self._store.commit(writes, expect)
        if step == "unanswered":
            raise CommitUnclear("the connection broke")
        return revision
