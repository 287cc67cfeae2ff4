"""What the listener answers: is the process alive, is it ready, what has it counted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from gateway.http.negotiation import choose
from gateway.http.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.http.request import Request

_METHODS = ("GET", "HEAD")


class Readiness(NamedTuple):
    """`reasons` say what is waited for, `notes` what is amiss all the same, for people."""

    ready: bool
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """`/healthz` says that the process lives, `/readyz` asks `readiness`, `/metrics` gives what
    `metrics` makes, piece by piece, or, for a client that likes that better, one of the `alternatives`. All
    are called on the event loop and must not block."""

    readiness: Callable[[], Readiness]
    metrics: Callable[[], Iterable[bytes]]
    metrics_content_type: str = "text/plain; version=0.0.4; charset=utf-8"
    alternatives: Mapping[str, Callable[[], Iterable[bytes]]] = field(default_factory=dict)  # by content type

    def answer(self, request: Request) -> Response:
        if request.path not in ("/healthz", "/readyz", "/metrics"):
            return Response.of_text(HTTPStatus.NOT_FOUND, "there are /healthz, /readyz and /metrics")
        if request.method not in _METHODS:
            return Response.of_text(
                HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD only", allow=", ".join(_METHODS)
            )
        if request.path == "/healthz":
            return Response.of_text(HTTPStatus.OK, "ok")
        if request.path == "/readyz":
            return self._readiness()
        chosen = choose(request.accept, [self.metrics_content_type, *self.alternatives])
        return Response(HTTPStatus.OK, self.alternatives.get(chosen, self.metrics)(), chosen)

    def _readiness(self) -> Response:
        ready, reasons, notes = self.readiness()
        said = {"ready": ready, "reasons": list(reasons), "notes": list(notes)}
        body = json.dumps(said).encode() + b"\n"
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(status, (body,), "application/json")
