"""The seam between configuration and where it is kept: `local`, one SQLite file, and `etcd`, alike.

A store holds bytes under keys such as `models/digits`, below a prefix that only the store knows. Every commit
raises the store's revision; an entry carries the revision of the commit that wrote it last. What the stores
promise alike is tested in `tests/store`:

- a commit is applied whole or not at all, and only if every key still has the revision that was expected;
- a read is of one revision, however many entries it has;
- a watch may coalesce but ends at the latest state, in order, and never loses a deletion: what it cannot
  resume (compaction, a store that was restored) it reads again and says so with `resync`;
- an entry under a lease is deleted by a commit of the store's own when the lease expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

# etcd's limits by default. The local store has them too, so that what was tried there works with etcd.
MAX_WRITES: Final = 128
MAX_COMMIT_BYTES: Final = 1_500_000  # keys and values of one commit


@dataclass(frozen=True, slots=True)
class Entry:
    """`revision` is of the commit that wrote it last. `lease` is 0 for one that stays until it is deleted."""

    key: str
    value: bytes
    revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Expect:
    """The key's entry still has this revision; 0: there is no entry."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Span:
    """The keys from `start` up to, and without, `end`, by the order of their bytes."""

    start: str
    end: str

    @classmethod
    def folder(cls, name: str) -> Span:
        """All keys that begin with `name/`."""
        return cls(f"{name}/", f"{name}0")  # "0" follows "/"

    @classmethod
    def one(cls, key: str) -> Span:
        return cls(key, f"{key}\0")

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.start <= key < self.end


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a span held at `revision`, ascending by key."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened up to and including `revision`, as its result: a key is in one of both at most.

    With `resync`, `puts` is everything that there is: what is not among them is gone.
    """

    revision: int
    puts: tuple[Entry, ...] = ()
    deletes: tuple[str, ...] = ()
    resync: bool = False


class StoreError(Exception):
    """Something about the store; the message is for operators and names no credentials."""


class StoreInvalid(StoreError):
    """The store's URL or one of its options is wrong."""


class StoreAway(StoreError):
    """No endpoint answers now. Nothing was written. May be tried again."""


class CommitUnclear(StoreAway):
    """The connection ended before the answer came: the commit was applied whole, or not at all."""


class StoreRefused(StoreError):
    """The store does not let us: credentials, permissions, or what it holds is no store of ours."""


class Conflict(StoreError):
    """Some keys are not as expected. `found` is what they are now: {key: entry, None where there is none}."""

    def __init__(self, found: Mapping[str, Entry | None]) -> None:
        super().__init__(f"changed meanwhile: {', '.join(sorted(found))}")
        self.found = found


class CommitTooLarge(StoreError):
    """More than MAX_WRITES writes or MAX_COMMIT_BYTES; nothing was written."""


class LeaseGone(StoreError):
    """The lease has expired or was revoked, and what was written under it is gone."""


class Store(Protocol):
    """Opened by `gateway.config.store.opening`. All methods but `watch` raise StoreAway and StoreRefused.

    Calls are bounded: none waits longer than a few seconds for a store that does not answer.
    """

    @property
    def where(self) -> str:
        """How messages name this store, without credentials."""
        ...

    @property
    def away(self) -> str:
        """Why the store cannot be reached now, '' while it can. Kept up to date while something watches."""
        ...

    async def read(self, span: Span, *, last: int | None = None) -> Snapshot:
        """Return what a span holds, all of it at one revision; with `last`, only so many of the highest
        keys.
        """
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def commit(self, writes: Sequence[Write], expect: Sequence[Expect] = ()) -> int:
        """Apply all writes in one revision and return it, if every expectation holds. No key may be written
        twice; expectations may be of keys that are not written.

        Raises:
            Conflict: nothing was written.
            CommitTooLarge: nothing was written.
            LeaseGone: of a Put; nothing was written.
            CommitUnclear
        """
        ...

    def watch(self, span: Span, *, after: int | None = None) -> AsyncGenerator[Change, None]:
        """Yield changes for ever. Without `after` the first is a `resync` with what the span holds; with it,
        what has changed since that revision, or a `resync` where that cannot be told.

        Reconnects by itself, with backoff and jitter, and goes on without gap or repetition; `away` says
        meanwhile why. Ends only when it is closed (`aclose`), or raises StoreRefused.
        """
        ...

    async def grant(self, ttl_s: float) -> int:
        """Return a new lease that expires after `ttl_s`, at least 1 s, unless it is renewed."""
        ...

    async def renew(self, lease: int) -> None:
        """Let a lease live for its whole time from now on. Raises LeaseGone."""
        ...

    async def revoke(self, lease: int) -> None:
        """Delete what was written under a lease, and the lease. One that is gone is no error."""
        ...

    async def remaining_s(self, lease: int) -> float:
        """Return how long a lease would live if it were not renewed. Raises LeaseGone."""
        ...
