"""Metadata that commands send with requests: what the operator says, and the token of the environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from crossgate.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable

# What gRPC carries as text; keys in -bin hold bytes, and those in grpc- are its own.
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_VALUE = re.compile(r"[\x20-\x7e]*")


def read_metadata(texts: Iterable[str]) -> dict[str, str]:
    """Return {key in lower case: value} of KEY=VALUE texts, the last of each key. Fails where a text is none,
    or gRPC would not carry it.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.lower()
        if not equals or not key:
            output.fail(f"--metadata {text!r} is not KEY=VALUE")
        if not _KEY.fullmatch(key):
            output.fail(
                f"--metadata {text!r}: a key has letters, digits and _.- only, and neither begins with grpc- "
                "nor ends with -bin"
            )
        if not _VALUE.fullmatch(value):
            output.fail(f"--metadata {text!r}: a value has printable ASCII characters only")
        found[key] = value
    return found


def token_metadata() -> dict[str, str]:
    """Return the metadata that show the token of the environment; a command line would show it to others.
    Fails where gRPC would not carry it.
    """
    token = os.environ.get("CROSSGATE_TOKEN", "")
    if not _VALUE.fullmatch(token):
        output.fail(
            "CROSSGATE_TOKEN: a token has printable ASCII characters only; is there a line break in it?"
        )
    return {"authorization": f"Bearer {token}"} if token else {}
