"""The admin service on its sockets, beside everything else in the gateway's event loop.

A request that fails, whatever the reason, fails alone: its caller is told, and the gateway serves on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import uuid
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc

from gateway.admin.address import claim, prepare_folder, release
from gateway.admin.draining import Drain
from gateway.admin.levels import Levels
from gateway.admin.recent import Recent
from gateway.admin.service import MAX_WATCHERS, AdminService
from gateway.admin.view import Stopping
from gateway.errors import Bug, GatewayError
from gateway.frontend.listeners import open_listeners
from gateway.frontend.listening import ListenerInvalid, Listening
from gateway.frontend.status import status_code, status_message
from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gateway.admin.view import Controls, View
    from gateway.clock import Clock
    from gateway.frontend.listening import Tls
    from gateway.lifecycle.catalog import Catalog

log = logging.getLogger(__name__)

SERVICE: Final = "/crossgate.admin.v1.Admin/"
_MAX_REQUEST_BYTES: Final = 64 << 10
_MAX_CONCURRENT: Final = 2 * MAX_WATCHERS
_PACE_S: Final = 5.0  # of samples
_WATCHED_PACE_S: Final = 1.0
_GRACE_S: Final = 0.25
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class AdminListening:
    """A Unix socket, TCP, or both. `replace`: this process follows the one that listens on the socket."""

    unix: Path | None = None
    host: str = ""  # '' is no TCP
    port: int = 0  # 0 takes a free one
    tls: Tls | None = None
    replace: bool = False


class AdminServer:
    """`start` listens, `run` owns what goes on in between, `close` ends all. Without a client CA it listens
    on loopback only: who can reach it may stop the gateway.
    """

    def __init__(
        self, view: View, controls: Controls, catalog: Catalog, clock: Clock, listening: AdminListening
    ) -> None:
        loop = asyncio.get_running_loop()
        self._view = view
        self._clock = clock
        self._listening = listening
        self._recent = Recent(clock.now_ns())
        self._drain = Drain(controls, view.in_flight, clock)
        self._levels = Levels(loop.call_later)

        def changes(call: Callable[[], None]) -> Callable[[], None]:
            catalog.watch(call)
            return lambda: catalog.unwatch(call)

        self._service = AdminService(view, self._recent, self._drain, self._levels, clock, changes)
        self._server: Any = None
        self._inode = 0

    async def start(self) -> list[str]:
        """Listen, and return the addresses: `unix:/path`, `host:port`.

        Raises:
            OSError, FolderUnsafe: it cannot be listened there.
            ListenerInvalid: the TLS files cannot be used, or it would be open to others.
        """
        listening = self._listening
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.max_concurrent_streams", _MAX_CONCURRENT),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=_MAX_CONCURRENT,
        )
        self._server.add_generic_rpc_handlers((_Methods(self._service),))
        addresses = []
        if listening.unix is not None:
            prepare_folder(listening.unix)
            self._inode = claim(listening.unix, self._bind, replace=listening.replace)
            addresses.append(f"unix:{listening.unix}")
        if listening.host:
            _check_open(listening)
            where = Listening(
                listening.host, listening.port, _MAX_REQUEST_BYTES, _MAX_REQUEST_BYTES, tls=listening.tls
            )
            addresses.append(open_listeners(self._server, where))
        await self._server.start()
        return addresses

    def _bind(self, path: Path) -> None:
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {path}: {error}") from error

    async def run(self) -> None:
        """Sample what the accounts count, and end drains; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._drain.run(), name="admin drain")
            watched = self._service.watched
            while True:
                await self._sample()
                if watched.is_set():
                    await asyncio.sleep(_WATCHED_PACE_S)
                    continue
                try:
                    async with asyncio.timeout(_PACE_S):
                        await watched.wait()
                except TimeoutError:
                    pass

    async def _sample(self) -> None:
        """What goes wrong here costs figures, never requests."""
        try:
            busy_ns = {slot.slot: slot.busy_ns for slot in self._view.slots() if slot.busy_ns is not None}
            for _ in self._recent.steps(self._clock.now_ns(), self._view.accounts, busy_ns):
                await asyncio.sleep(0)
        except Exception:
            log.exception("the figures of the admin service could not be sampled")

    async def close(self) -> None:
        """Answer no more; log levels that were set for a while go back. Closing twice is no error."""
        self._levels.close()
        if self._listening.unix is not None and self._inode:
            release(self._listening.unix, self._inode)
            self._inode = 0
        if self._server is not None:
            await self._server.stop(_GRACE_S)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped library
    def __init__(self, service: AdminService) -> None:
        self._methods = {
            "Status": _unary(service.status, pb.StatusRequest),
            "Explain": _unary(service.explain, pb.ExplainRequest),
            "RecentRequests": _unary(service.recent_requests, pb.RecentRequestsRequest),
            "Drain": _unary(service.drain, pb.DrainRequest),
            "SetLogLevel": _unary(service.set_log_level, pb.SetLogLevelRequest),
            "WatchStatus": grpc.unary_stream_rpc_method_handler(
                _watch(service), pb.WatchStatusRequest.FromString, pb.StatusResponse.SerializeToString
            ),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = details.method.rpartition("/")
        return self._methods.get(method) if service + "/" == SERVICE else None


def _unary(serve: Callable[[Any], Awaitable[Any]], request_type: Any) -> grpc.RpcMethodHandler:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await serve(request)
        except Exception as error:
            failure = error
        await _abort(context, failure)

    return grpc.unary_unary_rpc_method_handler(
        answer, request_type.FromString, lambda message: message.SerializeToString()
    )


def _watch(service: AdminService) -> Callable[[pb.WatchStatusRequest, Any], Awaitable[None]]:
    async def answer(request: pb.WatchStatusRequest, context: Any) -> None:
        try:
            async with aclosing(service.watch_status(request)) as pages:
                async for page in pages:
                    await context.write(page)
            return
        except Exception as error:
            failure = error
        await _abort(context, failure)

    return answer


async def _abort(context: Any, error: Exception) -> NoReturn:
    if isinstance(error, Stopping):
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    if not isinstance(error, GatewayError):
        error_id = uuid.uuid4().hex
        log.error("bug %s in the admin service", error_id, exc_info=error, extra={"error_id": error_id})
        error = Bug(error_id)
    await context.abort(_CODES[status_code(error)], status_message(error))
    raise AssertionError("abort raises")


def _check_open(listening: AdminListening) -> None:
    """Raise ListenerInvalid where others than this machine's users, or holders of certificates, get in."""
    if listening.tls is not None and listening.tls.client_ca is not None:
        return
    host = listening.host.strip("[]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise ListenerInvalid(
            f"the admin service cannot listen on {listening.host}: beyond loopback it needs TLS with a "
            "client CA, since who reaches it may stop the gateway"
        )
