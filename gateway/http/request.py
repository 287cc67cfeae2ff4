"""Request heads of HTTP/1.1, read strictly: RFC 9112 sections 2 to 6, without bodies.

What is ambiguous is refused rather than guessed, since proxies in front may guess otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")


class BadRequest(Exception):
    """A head that cannot be answered in any other way than with `status` and the end of the connection."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is without the query. `keep_alive` is false when the connection cannot or shall not serve
    another one, which includes a request with a body: bodies are never read. `accept` is empty where the
    client does not say what it takes."""

    method: str
    path: str
    keep_alive: bool
    accept: str = ""


def parse_head(head: bytes, max_fields: int) -> Request:
    """The request that `head` is, which excludes the empty line at its end. Raises BadRequest."""
    request_line, *field_lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.x is spoken here")
    fields = _parse_fields(field_lines, max_fields)
    is_1_0 = minor == b"0"
    if not is_1_0 and len(fields.get(b"host", ())) != 1:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "exactly one Host is needed")
    has_body = _has_body(fields)
    options = {o.strip().lower() for value in fields.get(b"connection", ()) for o in value.split(b",")}
    persistent = b"keep-alive" in options if is_1_0 else True
    return Request(
        method=method.decode("ascii"),
        path=_path(target),
        keep_alive=persistent and b"close" not in options and not has_body,
        accept=b",".join(fields.get(b"accept", ())).decode("latin-1"),
    )


def _parse_fields(lines: list[bytes], max_fields: int) -> dict[bytes, list[bytes]]:
    """{lower-case name: values}"""
    if len(lines) > max_fields:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {max_fields} header fields")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed header field")
        name, value = match.groups()
        fields.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
    return fields


def _has_body(fields: dict[bytes, list[bytes]]) -> bool:
    lengths = set(fields.get(b"content-length", ()))
    encoded = b"transfer-encoding" in fields
    if not lengths:
        return encoded
    if len(lengths) > 1 or encoded or not all(_DIGITS.fullmatch(length) for length in lengths):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "contradictory or malformed Content-Length")
    return any(int(length) for length in lengths)


def _path(target: bytes) -> str:
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            if target == b"*":  # OPTIONS *
                return "*"
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the target is neither a path nor an http URL")
        target = target[absolute.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    return target.partition(b"?")[0].decode("ascii")
