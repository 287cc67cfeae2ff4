"""Metadata before a request and after an answer, which gRPC sends as HTTP/2 headers and trailers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Headers = tuple[tuple[str, str | bytes], ...]


def merge_headers(*layers: Mapping[str, str | bytes] | None) -> Headers:
    """All layers as gRPC wants them, keys in lower case; a later layer wins.

    Raises TypeError, naming the key, unless a value is text, or bytes under a key that ends in `-bin`.
    """
    merged: dict[str, str | bytes] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise TypeError(f"metadata must map keys to values, not be a {type(layer).__name__}")
        for key, value in (layer or {}).items():
            expected = bytes if key.lower().endswith("-bin") else str
            if not isinstance(value, expected):
                raise TypeError(f"metadata {key!r} must be {expected.__name__}, not a {type(value).__name__}")
            merged[key.lower()] = value
    return tuple(merged.items())


def read_trailers(trailers: Iterable[tuple[str, str | bytes]] | None) -> Headers:
    """The trailing metadata of a finished call as plain pairs; gRPC gives None where there was no answer."""
    return tuple((key, value) for key, value in trailers or ())
