"""Responses, and their bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from http import HTTPStatus

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """`body` comes in pieces; other work may run between making one piece and the next."""

    status: HTTPStatus
    body: Iterable[bytes]
    content_type: str = _TEXT
    allow: str = ""  # the methods, with METHOD_NOT_ALLOWED

    @classmethod
    def of_text(cls, status: HTTPStatus, text: str, *, allow: str = "") -> Response:
        return cls(status, (text.encode() + b"\n",), allow=allow)

    def head(self, size_bytes: int, *, keep_alive: bool) -> bytes:
        """The status line and header fields for a body of `size_bytes`."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {size_bytes}",
            "Cache-Control: no-store",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
        ]
        if self.allow:
            lines.append(f"Allow: {self.allow}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")
