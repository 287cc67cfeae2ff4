"""Which of several media types a client gets: the field `Accept`, RFC 9110 section 12.5.1."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE: Final = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*")
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")\s*')
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_PART: Final = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*")+')
_MAX_CHARACTERS: Final = 1000  # several times what scrapers send: reading it must not take long
_QUALITY: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class MediaRange(NamedTuple):
    """One element of `Accept`; `type` and `subtype` may be `*`."""

    type: str
    subtype: str
    version: str
    quality: float

    @property
    def precision(self) -> int:
        """The most precise range that fits decides."""
        return (self.type != "*") + (self.subtype != "*") + bool(self.version)


def choose(accept: str, offered: Sequence[str]) -> str:
    """The one of the `offered` content types that `accept` likes best; of equals the first.

    Only the parameter `version` is looked at: charset and escaping are ours to say. Where nothing is
    acceptable, or the field is empty, malformed or very long, it is the first too: RFC 9110 allows to
    disregard the field, and a scraper can do more with another format than with an error.
    """
    ranges = parse_accept(accept)
    best, best_quality = offered[0], 0.0
    for content_type in offered:
        quality = _quality(content_type, ranges)
        if quality > best_quality:
            best, best_quality = content_type, quality
    return best


def parse_accept(accept: str) -> list[MediaRange]:
    """The ranges of the field, without those that are malformed; none of one that is very long."""
    found: list[MediaRange] = []
    if len(accept) > _MAX_CHARACTERS:
        return found
    for element in _ELEMENT.findall(accept):
        media_range = _parse_range(element)
        if media_range is not None:
            found.append(media_range)
    return found


def _parse_range(element: str) -> MediaRange | None:
    media, _, rest = element.partition(";")
    match = _RANGE.fullmatch(media)
    parameters = _parameters(_PART.findall(rest))
    if match is None or parameters is None or (match[1] == "*" != match[2]):
        return None
    quality = parameters.get("q", "1")
    if not _QUALITY.fullmatch(quality):
        return None
    return MediaRange(match[1].lower(), match[2].lower(), parameters.get("version", ""), float(quality))


def _parameters(parts: Sequence[str]) -> Mapping[str, str] | None:
    """{lower-case name: value}, None where one is malformed"""
    found: dict[str, str] = {}
    for part in parts:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            return None
        found[match[1].lower()] = match[2] if match[2] is not None else match[3]
    return found


def _quality(content_type: str, ranges: Sequence[MediaRange]) -> float:
    """How much the ranges like a content type, 0.0 where they do not accept it."""
    offer = _parse_range(content_type)
    assert offer is not None, "what is offered is well formed"
    fitting = [
        each
        for each in ranges
        if each.type in ("*", offer.type)
        and each.subtype in ("*", offer.subtype)
        and each.version in ("", offer.version)
    ]
    return max(fitting, key=lambda each: each.precision).quality if fitting else 0.0
