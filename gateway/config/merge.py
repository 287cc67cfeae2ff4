"""Two changes of one document, made from the same state: whether both can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.config.difference import MISSING, same
from gateway.config.wording import join


@dataclass(frozen=True, slots=True)
class Merge:
    """`document` has both changes, None where the document was deleted. With `overlaps`, the paths that both
    changed to different ends, it has theirs there.
    """

    document: dict[str, Any] | None
    overlaps: tuple[str, ...] = ()


def merge(base: dict[str, Any] | None, ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> Merge:
    """Merge mappings key by key. Lists are whole values: what is at a place in a list has no name of its own,
    so two changes of one list always overlap.
    """
    overlaps: list[str] = []
    merged = _merge("", _or_missing(base), _or_missing(ours), _or_missing(theirs), overlaps)
    if merged is MISSING:
        return Merge(None, tuple(overlaps))
    assert isinstance(merged, dict), "all three are mappings or missing"
    return Merge(merged, tuple(overlaps))


def _merge(path: str, base: object, ours: object, theirs: object, overlaps: list[str]) -> object:
    if same(base, ours) or same(ours, theirs):
        return theirs
    if same(base, theirs):
        return ours
    if isinstance(ours, dict) and isinstance(theirs, dict):
        was = base if isinstance(base, dict) else {}
        merged = {
            key: _merge(
                join(path, key),
                was.get(key, MISSING),
                ours.get(key, MISSING),
                theirs.get(key, MISSING),
                overlaps,
            )
            for key in (*theirs, *(key for key in ours if key not in theirs))
        }
        return {key: value for key, value in merged.items() if value is not MISSING}
    overlaps.append(path or "document")
    return theirs


def _or_missing(document: dict[str, Any] | None) -> object:
    return MISSING if document is None else document
