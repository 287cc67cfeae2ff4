"""Paths into a document, as findings name them and operators type them: `traffic.split.canary`,
`instances[0].options["a.b"]`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

from gateway.config.schema import child, container
from gateway.config.wording import did_you_mean, join, listed, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

Path = tuple[str | int, ...]

_PART = re.compile(r'\.?([A-Za-z0-9_-]{1,100})|\[([0-9]{1,4})\]|\[("(?:[^"\\]|\\.){0,500}")\]')
_GRAMMAR: Final = 'expected a path such as traffic.split.canary, instances[0].count or labels["a.b"]'


class PathInvalid(Exception):
    """The message names the path, and what would be right."""


def parse_path(text: str) -> Path:
    """Raises PathInvalid."""
    parts: list[str | int] = []
    at = 0
    while at < len(text) and (found := _PART.match(text, at)) is not None:
        if found[1] is not None and (text[at] == ".") != bool(parts):
            break
        parts.append(_key(text, found))
        at = found.end()
    if not parts or at < len(text):
        raise PathInvalid(f"{quote(text)}: {_GRAMMAR}")
    return tuple(parts)


def show_path(path: Sequence[str | int]) -> str:
    """What `parse_path` reads."""
    shown = ""
    for part in path:
        shown = f"{shown}[{part}]" if isinstance(part, int) else join(shown, part)
    return shown


def type_at(kind: inspect.Type, path: Path) -> inspect.Type:
    """What a document takes at a path. Raises PathInvalid with the nearest name there is."""
    for i, part in enumerate(path):
        below = child(kind, part)
        if below is None:
            raise PathInvalid(f"{show_path(path[: i + 1])}: {_no_such(kind, path[:i], part)}")
        kind = below
    return kind


def with_value(data: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    """A copy with `value` at the path. Mappings on the way are made; an index one past the end of a list
    lengthens it. Raises PathInvalid.
    """
    changed = _with(data, path, value, ())
    assert isinstance(changed, dict), "a document is a mapping"
    return changed


def without(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """A copy that lacks what is at the path, and mappings that are empty without it. Raises PathInvalid
    where nothing is there.
    """
    return _without(data, path, ()) or {}


def _key(text: str, found: re.Match[str]) -> str | int:
    if found[2] is not None:
        return int(found[2])
    if found[3] is None:
        return found[1]
    try:
        key = json.loads(found[3])
    except ValueError as error:
        raise PathInvalid(f"{quote(text)}: {found[3]} is no text in quotes: {error}") from None
    assert isinstance(key, str), "it is in quotes"
    return key


def _no_such(kind: inspect.Type, above: Path, part: str | int) -> str:
    match container(kind):
        case inspect.StructType() as struct:
            names = [field.name for field in struct.fields]
            if isinstance(part, int):
                return f"{show_path(above) or 'the document'} is a mapping; its keys are {', '.join(names)}"
            return (
                f"is not a known key{did_you_mean(part, names) or '; the keys here are ' + ', '.join(names)}"
            )
        case inspect.DictType():
            return f"{show_path(above)} is a mapping: expected a key, not an index"
        case inspect.VarTupleType():
            return f"{show_path(above)} is a list: expected an index such as {show_path(above)}[0]"
    return f"{show_path(above)} is a single value, nothing is below it"


def _with(data: object, path: Path, value: object, above: Path) -> object:
    if not path:
        return value
    part, *rest = path
    here = (*above, part)
    if isinstance(part, int):
        items = [*data] if isinstance(data, list) else [] if data is None else _not(data, "a list", above)
        if part > len(items):
            raise PathInvalid(
                f"{show_path(here)}: the list has {len(items)} items; the next is [{len(items)}]"
            )
        items[part : part + 1] = [_with(items[part] if part < len(items) else None, (*rest,), value, here)]
        return items
    mapping = {**data} if isinstance(data, dict) else {} if data is None else _not(data, "a mapping", above)
    mapping[part] = _with(mapping.get(part), (*rest,), value, here)
    return mapping


def _without(data: object, path: Path, above: Path) -> Any:
    part, *rest = path
    here = (*above, part)
    there: Sequence[Any] = ()
    if isinstance(data, (dict, list)):
        there = [*data] if isinstance(data, dict) else range(len(data))
    if part not in there or not isinstance(data, (dict, list)):
        keys = [str(each) for each in there]
        nearest = did_you_mean(part, keys) or (f"; there is {listed(keys)}" if keys else "")
        raise PathInvalid(f"{show_path(here)}: is not there{nearest}")
    kept = _without(data[part], (*rest,), here) if rest else None  # type: ignore[index]  # it is in there
    if isinstance(data, list):
        return [*data[: int(part)], *([] if kept is None else [kept]), *data[int(part) + 1 :]] or None
    changed = {key: value for key, value in data.items() if key != part}
    if kept is not None:
        changed = {key: kept if key == part else value for key, value in data.items()}
    return changed or None


def _not(data: object, expected: str, above: Path) -> Any:
    raise PathInvalid(f"{show_path(above)}: is {json.dumps(data)[:60]}, not {expected}")
