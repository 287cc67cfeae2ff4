"""grpc.health.v1: the whole server (''), a model (`digits`) and a version (`digits/2`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from gateway.errors import NotFound
from gateway.frontend.codec import MalformedRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from gateway.lifecycle.catalog import Catalog

_SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class UnknownService(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"unknown service {name!r}: it is neither '' nor a model nor model/version")


class HealthServicer:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def _status(self, name: str) -> int:
        if name in ("", _SERVICE):
            return int(SERVING if self._catalog.ready()[0] else NOT_SERVING)
        model, slash, version = name.partition("/")
        if not self._catalog.knows(model):
            return int(SERVICE_UNKNOWN)
        statuses = self._catalog.versions(model)
        ready = {status.version for status in statuses if status.takes_requests}
        known = {status.version for status in statuses}
        if slash and version not in known:
            return int(SERVICE_UNKNOWN)
        if self._catalog.draining:
            return int(NOT_SERVING)
        return int(SERVING if (version in ready if slash else ready) else NOT_SERVING)

    def check(self, message: bytes) -> bytes:
        name = _service(message)
        status = self._status(name)
        if status == SERVICE_UNKNOWN:
            raise UnknownService(name)
        return _response(status)

    async def watch(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the status now and at every change, until the caller goes away. Unknown names may become
        known.
        """
        message = await anext(requests, None)
        if message is None:
            raise MalformedRequest("a watch takes one HealthCheckRequest")
        name = _service(message)
        changed = asyncio.Event()
        self._catalog.watch(changed.set)
        try:
            last = None
            while True:
                changed.clear()
                status = self._status(name)
                if status != last:
                    last = status
                    yield _response(status)
                await changed.wait()
        finally:
            self._catalog.unwatch(changed.set)


def _service(message: bytes) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError as error:
        raise MalformedRequest("the message is not a HealthCheckRequest") from error


def _response(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())
