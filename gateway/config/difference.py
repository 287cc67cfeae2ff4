"""How two documents differ, path by path, as an operator reads it and as a merge patch says it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.config.wording import join

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_SHOWN: Final = 200


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()  # what a difference has on the side that lacks the path


@dataclass(frozen=True, slots=True)
class Difference:
    """`str(difference)` is one line that begins with `+`, `-` or `~`."""

    path: str
    before: object
    after: object

    @property
    def sign(self) -> str:
        if self.before is MISSING:
            return "+"
        return "-" if self.after is MISSING else "~"

    def __str__(self) -> str:
        at = self.path or "document"
        if self.sign == "~":
            return f"~ {at}: {_shown(self.before)} -> {_shown(self.after)}"
        return f"{self.sign} {at}: {_shown(self.after if self.sign == '+' else self.before)}"


def canonical(data: object) -> bytes:
    """JSON with sorted keys: equal for what is the same, and what a store keeps of a document."""
    return msgspec.json.encode(data, order="sorted")


def same(one: object, other: object) -> bool:
    """Unlike `==`, 1 is neither true nor 1.0."""
    if one is MISSING or other is MISSING:
        return one is other
    return canonical(one) == canonical(other)


def differences(before: object, after: object) -> tuple[Difference, ...]:
    """What changed from one plain value to another. None, in place of a document, is none at all."""
    return tuple(_differences("", _document(before), _document(after)))


def make_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) that turns one document into the other. A patch cannot set a key to
    null: that removes it, which for a document means the same, its default.
    """
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        was = before.get(key, MISSING)
        if isinstance(was, dict) and isinstance(value, dict):
            if inner := make_patch(was, value):
                patch[key] = inner
        elif not same(was, value):
            patch[key] = value
    return patch


def _document(value: object) -> object:
    return {} if value is None else value


def _differences(path: str, before: object, after: object) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            yield from _differences(join(path, key), before.get(key, MISSING), after.get(key, MISSING))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(path, before, after)
    elif not same(before, after):
        yield Difference(path, before, after)


def _of_lists(path: str, before: list[object], after: list[object]) -> Iterator[Difference]:
    """Items of lists as long as each other are compared in pairs; else what was put in or taken out."""
    if len(before) == len(after):
        for i, (was, item) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{i}]", was, item)
        return
    matcher = SequenceMatcher(None, [*map(canonical, before)], [*map(canonical, after)], autojunk=False)
    for what, i1, i2, j1, j2 in matcher.get_opcodes():
        if what == "equal":
            continue
        for i in range(i1, i2):
            yield Difference(f"{path}[{i}]", before[i], MISSING)
        for j in range(j1, j2):
            yield Difference(f"{path}[{j}]", MISSING, after[j])


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    if not text.isprintable():  # what drives a terminal, JSON may leave as it is
        text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
