"""The RPCs of the admin service, without a transport: messages in, messages out, expected failures raised."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from gateway.admin.explaining import explanation_of
from gateway.admin.levels import LevelInvalid
from gateway.admin.pages import MAX_LIMIT, MAX_PATTERNS, Page
from gateway.admin.recalling import message_of
from gateway.config.wording import did_you_mean
from gateway.errors import Exhausted, InvalidRequest
from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from gateway.admin.draining import Drain
    from gateway.admin.levels import Levels
    from gateway.admin.recent import Recent
    from gateway.admin.view import View
    from gateway.clock import Clock

MAX_WATCHERS: Final = 16
_MAX_NAME: Final = 200
_MAX_METADATA: Final = 100
_DEFAULT_INTERVAL_MS: Final = 1000
_MIN_INTERVAL_MS: Final = 200
_MAX_INTERVAL_MS: Final = 3_600_000
_MAX_DEADLINE_S: Final = 86_400.0
_DEFAULT_REQUESTS: Final = 20
_MOST_REQUESTS: Final = 200


class RequestInvalid(InvalidRequest):
    """A field of an admin request is wrong."""


class TooManyWatchers(Exhausted):
    def __init__(self) -> None:
        super().__init__(f"{MAX_WATCHERS} callers watch this gateway already, which is the limit")


class AdminService:
    """`changes(call)` tells of transitions until what it returns is called. Nothing here blocks the event
    loop for more than a few milliseconds, whatever is asked.
    """

    def __init__(
        self,
        view: View,
        recent: Recent,
        drain: Drain,
        levels: Levels,
        clock: Clock,
        changes: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self._view = view
        self._recent = recent
        self._drain = drain
        self._levels = levels
        self._clock = clock
        self._changes = changes
        self.watchers = 0
        self.watched = asyncio.Event()  # set while somebody watches

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        """Raises RequestInvalid."""
        _check_page(request.models, request.limit)
        return await self._page(request.models, request.limit, request.page)

    async def watch_status(self, request: pb.WatchStatusRequest) -> AsyncGenerator[pb.StatusResponse, None]:
        """Yield the first page now, after each transition and after each interval. Transitions that come
        sooner than the shortest interval after one another are shown together.

        Raises:
            RequestInvalid, TooManyWatchers
        """
        _check_page(request.models, request.limit)
        interval_ms = request.interval_ms or _DEFAULT_INTERVAL_MS
        if not _MIN_INTERVAL_MS <= interval_ms <= _MAX_INTERVAL_MS:
            raise RequestInvalid(
                f"interval_ms must be from {_MIN_INTERVAL_MS} to {_MAX_INTERVAL_MS}, not {interval_ms}"
            )
        if self.watchers >= MAX_WATCHERS:
            raise TooManyWatchers
        changed = asyncio.Event()
        forget = self._changes(changed.set)
        self.watchers += 1
        self.watched.set()
        try:
            while True:
                changed.clear()
                yield await self._page(request.models, request.limit, "")
                await asyncio.sleep(_MIN_INTERVAL_MS / 1000)
                try:
                    async with asyncio.timeout((interval_ms - _MIN_INTERVAL_MS) / 1000):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            forget()
            self.watchers -= 1
            if not self.watchers:
                self.watched.clear()

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Raises RequestInvalid. What the data plane would refuse is an answer, not an error."""
        _check_text("model", request.model)
        _check_text("version", request.version)
        if len(request.metadata) > _MAX_METADATA:
            raise RequestInvalid(f"at most {_MAX_METADATA} metadata, not {len(request.metadata)}")
        metadata = {key.lower(): value for key, value in request.metadata.items()}
        return explanation_of(self._view, request.model, request.version, metadata)

    async def recent_requests(self, request: pb.RecentRequestsRequest) -> pb.RecentRequestsResponse:
        """Raises RequestInvalid. What is not kept is an empty answer."""
        _check_text("model", request.model)
        if request.limit > _MOST_REQUESTS:
            raise RequestInvalid(f"limit must be at most {_MOST_REQUESTS}, not {request.limit}")
        if request.id and request.model:
            raise RequestInvalid("`id` names requests of any model: it does not go with `model`")
        kept, limit = self._view.recent, request.limit or _DEFAULT_REQUESTS
        found = kept.find(request.id)[:limit] if request.id else kept.latest(limit, request.model)
        return pb.RecentRequestsResponse(requests=[message_of(each) for each in found])

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        """Raises RequestInvalid, and Stopping where `end` comes too late."""
        deadline_s = request.deadline_seconds if request.HasField("deadline_seconds") else None
        if request.end:
            if request.exit or deadline_s is not None:
                raise RequestInvalid("`end` takes requests again: it goes with neither `exit` nor a deadline")
            drained = self._drain.end()
        else:
            if deadline_s is not None and not 0 <= deadline_s <= _MAX_DEADLINE_S:
                raise RequestInvalid(
                    f"a deadline is from 0 to {_MAX_DEADLINE_S:g} seconds, not {deadline_s:g}"
                )
            drained = await self._drain.begin(deadline_s, leave=request.exit)
        return pb.DrainResponse(
            draining=drained.draining, in_flight=drained.in_flight, exiting=drained.exiting
        )

    async def set_log_level(self, request: pb.SetLogLevelRequest) -> pb.SetLogLevelResponse:
        """Raises RequestInvalid."""
        for_s = request.duration_seconds if request.HasField("duration_seconds") else None
        _check_text("logger", request.logger)
        _check_text("level", request.level)
        if for_s is not None and math.isnan(for_s):
            raise RequestInvalid("duration_seconds must be a number")
        try:
            done = self._levels.set(request.level, request.logger, for_s)
        except LevelInvalid as error:
            raise RequestInvalid(str(error)) from error
        return pb.SetLogLevelResponse(
            level=done.level, previous=done.previous, reverts_in_seconds=done.reverts_s
        )

    async def _page(self, patterns: Sequence[str], limit: int, after: str) -> pb.StatusResponse:
        page = Page(self._view, self._recent, patterns, limit, after)
        for _ in page.steps(self._clock.now_ns()):
            await asyncio.sleep(0)
        if page.missing:
            page.message.unmatched.extend(await asyncio.to_thread(_hints, page.missing, page.names))
        return page.message


def _hints(patterns: Sequence[str], names: Sequence[str]) -> list[pb.Unmatched]:
    """Looking for near names takes some 10 us for each that there is: not for the event loop's thread."""
    return [pb.Unmatched(pattern=pattern, hint=did_you_mean(pattern, names)) for pattern in patterns]


def _check_page(patterns: Sequence[str], limit: int) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise RequestInvalid(f"at most {MAX_PATTERNS} models or patterns, not {len(patterns)}")
    if limit > MAX_LIMIT:
        raise RequestInvalid(f"a page has at most {MAX_LIMIT} models, not {limit}")
    for pattern in patterns:
        _check_text("pattern", pattern)


def _check_text(what: str, text: str) -> None:
    if len(text) > _MAX_NAME:
        raise RequestInvalid(f"a {what} has at most {_MAX_NAME} characters, not {len(text)}")
