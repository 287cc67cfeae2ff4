"""Walking the types of documents: what a path takes, what text means there, which order keys are shown in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

from gateway.config.errors import DocumentInvalid
from gateway.config.yaml12 import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST: Final = ("schema", "model")  # shown before all other keys
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"[-+]?[0-9]{1,19}")
_CONTAINERS = (inspect.StructType, inspect.DictType, inspect.VarTupleType)


Container = inspect.StructType | inspect.DictType | inspect.VarTupleType


def bare(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The alternatives of a type, without constraints and without null."""
    if isinstance(kind, inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        alternatives = [each for one in kind.types for each in bare(one)]
        return tuple(each for each in alternatives if not isinstance(each, inspect.NoneType))
    return (kind,)


def container(
    kind: inspect.Type | None,
) -> inspect.StructType | inspect.DictType | inspect.VarTupleType | None:
    """The kind of mapping or list that a type takes, None for a scalar."""
    return next((each for each in bare(kind) if isinstance(each, _CONTAINERS)), None) if kind else None


def child(kind: inspect.Type | None, key: str | int) -> inspect.Type | None:
    """What is below a key or at an index; None where nothing is known of it."""
    match container(kind), key:
        case inspect.StructType() as struct, str():
            return next((field.type for field in struct.fields if field.name == key), None)
        case inspect.DictType() as mapping, str():
            return mapping.value_type
        case inspect.VarTupleType() as items, int():
            return items.item_type
    return None


def read_scalar(kind: inspect.Type | None, text: str) -> object:
    """Text as the first that its type takes of a truth value, a number and text. Where it takes none of it
    the text comes back, for validation to say what is expected.
    """
    if kind is None:
        return text
    return next((value for value in _readings(text) if any(_takes(one, value) for one in bare(kind))), text)


def read_value(kind: inspect.Type | None, text: str) -> object:
    """Text from a command line: a scalar by its type, `null`, a mapping or list in YAML or JSON.

    Raises DocumentInvalid: it is no YAML.
    """
    if text == "null":
        return None
    if container(kind) is not None:
        return parse_yaml(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        try:
            return parse_yaml(text)
        except DocumentInvalid:
            return text
    return read_scalar(kind, text)


def ordered(data: Any, kind: inspect.Type | None) -> Any:
    """The same data with keys in the order in which they are declared, the others by their text."""
    if isinstance(data, dict):
        within = container(kind)
        declared = [field.name for field in within.fields] if isinstance(within, inspect.StructType) else []
        order = [*_FIRST, *declared] if "model" in declared else declared
        ranks = {key: rank for rank, key in reversed([*enumerate(order)])}
        keys = sorted(data, key=lambda key: (ranks.get(key, len(ranks)), *_natural(key)))
        return {key: ordered(data[key], child(kind, key)) for key in keys}
    if isinstance(data, list):
        return [ordered(item, child(kind, i)) for i, item in enumerate(data)]
    return data


def _takes(kind: inspect.Type, value: object) -> bool:
    """Whatever range or form is wanted: that is for validation to say."""
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case inspect.StrType() | inspect.LiteralType():
            return isinstance(value, str)
    return False


def _readings(text: str) -> Iterator[object]:
    stripped = text.strip()
    if stripped in ("true", "false"):
        yield stripped == "true"
    if _WHOLE.fullmatch(stripped):
        yield int(stripped)
    if _NUMBER.fullmatch(stripped):
        yield float(stripped)
    yield text


def _natural(key: str) -> tuple[int, str]:
    """Versions in the order of their numbers."""
    return (len(key), key) if key.isdecimal() else (0, key)
