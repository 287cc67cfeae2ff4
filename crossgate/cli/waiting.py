"""Waiting until every live gateway has applied a change, by what gateways write of themselves in a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.config.keys import GATEWAYS, STATUS, named_by
from gateway.config.status import ModelReport, Presence
from gateway.config.store.store import Change, StoreAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from gateway.config.store.store import Entry, Span, Store

SETTLE_S: Final = 2.0  # a version may be unavailable for a moment, while its worker starts again

_LOOK_S: Final = 1.0  # without news; the store may have been away when it was to confirm what they said


@dataclass(frozen=True, slots=True)
class Awaited:
    """A change of one model at `revision`, or without a model one of the gateway's document. A version of
    `versions` that is unavailable fails it; other versions may be so for reasons of their own.
    """

    revision: int
    model: str = ""
    versions: frozenset[str] = frozenset()
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one gateway is with one change; `reason` says what is missing or wrong."""

    state: Literal["applied", "waiting", "failing"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reasons` are for people: what is missing or wrong, a line for each gateway and model."""

    state: Literal["applied", "failed", "late", "nobody", "gone"]
    gateways: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


_APPLIED: Final = Progress("applied")


def judge(awaited: Awaited, presence: Presence, report: ModelReport | None) -> Progress:
    """Decide from what a gateway says of itself and of the model, None where it says nothing of it."""
    observed = presence.observed >= awaited.revision
    if report is None or not awaited.model:
        return _APPLIED if observed else Progress("waiting", "has not seen the change yet")
    if not observed and report.revision < awaited.revision:
        return Progress("waiting", "has not seen the change yet")
    if report.problem:
        return Progress("failing", report.problem)
    if awaited.deleted:
        return Progress("waiting", f"unloads {', '.join(report.versions) or 'it'}")
    for version, said in report.versions.items():
        if version in awaited.versions and said.state == "UNAVAILABLE":
            return Progress(
                "failing", f"version {version} is unavailable: {said.reason or 'no reason given'}"
            )
    if report.applied < report.revision:
        return Progress("waiting", f"waits for {', '.join(report.waits) or 'its versions'}")
    loading = [
        f"{version}{': ' + said.reason if said.reason else ''}"
        for version, said in report.versions.items()
        if version in awaited.versions and said.state == "LOADING"
    ]
    return Progress("waiting", f"loads version {', '.join(loading)}") if loading else _APPLIED


@dataclass(slots=True)
class _View:
    """What gateways have written. A report is of use only beside its gateway's presence."""

    presences: dict[str, Presence] = field(default_factory=dict)
    reports: dict[tuple[str, ...], ModelReport] = field(default_factory=dict)  # {(gateway, model): report}
    complete: set[Span] = field(default_factory=set)

    def take(self, span: Span, change: Change) -> None:
        self.complete.add(span)
        if change.resync:
            (self.presences if span == GATEWAYS else self.reports).clear()
        for entry in change.puts:
            self._put(span, entry)
        for key in change.deletes:
            names = named_by(key, span) or ("",)
            if span == GATEWAYS:
                self.presences.pop(names[0], None)
            else:
                self.reports.pop(names, None)

    def _put(self, span: Span, entry: Entry) -> None:
        names = named_by(entry.key, span)
        try:
            if span == GATEWAYS and names is not None:
                self.presences[names[0]] = msgspec.json.decode(entry.value, type=Presence)
            elif names is not None:
                self.reports[names] = msgspec.json.decode(entry.value, type=ModelReport)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # of another release, and as if it were not there: its gateway is waited for

    @property
    def live(self) -> list[str]:
        return sorted(name for name, presence in self.presences.items() if not presence.draining)

    def progress(self, awaited: Iterable[Awaited]) -> dict[tuple[str, str], Progress]:
        """{(gateway, model): progress}"""
        return {
            (gateway, each.model): judge(
                each, self.presences[gateway], self.reports.get((gateway, each.model))
            )
            for gateway in self.live
            for each in awaited
        }


class Waiting:
    """One wait, fed with what happens and the time; it never sleeps and reads nothing itself."""

    def __init__(self, awaited: Sequence[Awaited], deadline_s: float, settle_s: float = SETTLE_S) -> None:
        self._awaited = tuple(awaited)
        self._deadline_s = deadline_s
        self._settle_s = settle_s
        self._view = _View()
        self._seen = False  # a gateway was live since the begin
        self._failing_since: dict[tuple[str, str, str], float] = {}  # {(gateway, model, reason): time}

    def take(self, span: Span, change: Change) -> None:
        self._view.take(span, change)

    def outcome(self, now_s: float, *, confirmed: bool = True) -> Outcome | None:
        """None while it is to go on; also where all looks applied, but is not `confirmed`."""
        if self._view.complete != {GATEWAYS, STATUS}:
            late = Outcome("late", (), ("the store has not answered",))
            return late if now_s >= self._deadline_s else None
        live = tuple(self._view.live)
        if not live:
            return Outcome("gone" if self._seen else "nobody")
        self._seen = True
        progress = self._view.progress(self._awaited)
        if confirmed and all(each.state == "applied" for each in progress.values()):
            return Outcome("applied", live)
        failing = {
            (gateway, model, each.reason)
            for (gateway, model), each in progress.items()
            if each.state == "failing"
        }
        self._failing_since = {key: self._failing_since.get(key, now_s) for key in failing}
        if any(now_s >= since + self._settle_s for since in self._failing_since.values()):
            return Outcome("failed", live, self.reasons())
        return Outcome("late", live, self.reasons()) if now_s >= self._deadline_s else None

    def wake_s(self) -> float:
        """When to ask for the outcome again, if nothing happens before."""
        settled = [since + self._settle_s for since in self._failing_since.values()]
        return min([self._deadline_s, *settled])

    def reasons(self) -> tuple[str, ...]:
        """What is awaited now."""
        return tuple(
            f"{gateway}: {model + ': ' if model else ''}{each.reason}"
            for (gateway, model), each in sorted(self._view.progress(self._awaited).items())
            if each.state != "applied"
        )


async def wait_until_applied(
    store: Store,
    awaited: Sequence[Awaited],
    timeout_s: float,
    tell: Callable[[str], None],
    *,
    settle_s: float = SETTLE_S,
    now_s: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Wait until every live gateway has applied all of it, one cannot, none is left, or `timeout_s` is over.
    `tell` hears each thing that is awaited, once.

    Raises StoreRefused.
    """
    waiting = Waiting(awaited, now_s() + timeout_s, settle_s)
    told: set[str] = set()
    news: asyncio.Queue[tuple[Span, Change]] = asyncio.Queue()
    async with _alone(), asyncio.TaskGroup() as group:
        pumps = [group.create_task(_pump(store, span, news)) for span in (GATEWAYS, STATUS)]
        while (outcome := await _confirmed(store, waiting, now_s)) is None:
            for reason in waiting.reasons():
                if reason not in told:
                    tell(reason)
            told.update(waiting.reasons())
            try:
                async with asyncio.timeout(min(max(waiting.wake_s() - now_s(), 0.0), _LOOK_S)):
                    waiting.take(*await news.get())
            except TimeoutError:
                continue
        for pump in pumps:
            pump.cancel()
    return outcome


async def _confirmed(store: Store, waiting: Waiting, now_s: Callable[[], float]) -> Outcome | None:
    """The outcome; `applied` only after one more look. A gateway writes what it says of models before what it
    says of itself, but of two watches the one may be behind the other.
    """
    outcome = waiting.outcome(now_s())
    if outcome is None or outcome.state != "applied":
        return outcome
    try:
        snapshot = await store.read(STATUS)
    except StoreAway:
        return waiting.outcome(now_s(), confirmed=False)
    waiting.take(STATUS, Change(snapshot.revision, snapshot.entries, resync=True))
    return waiting.outcome(now_s())


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """A task group's error as what it is."""
    try:
        yield
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _pump(store: Store, span: Span, news: asyncio.Queue[tuple[Span, Change]]) -> None:
    async with aclosing(store.watch(span)) as changes:
        async for change in changes:
            news.put_nowait((span, change))
