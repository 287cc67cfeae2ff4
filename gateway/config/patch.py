"""Merge patches (RFC 7396): how an override says what it changes of a document for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def merge_patch(target: object, patch: object) -> object:
    """Return `target` as `patch` changes it: mappings merge, null removes a key, anything else replaces.
    Neither is changed.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def fold(target: object, patches: Iterable[object]) -> object:
    """Return `target` after all patches, in their order."""
    for patch in patches:
        target = merge_patch(target, patch)
    return target
