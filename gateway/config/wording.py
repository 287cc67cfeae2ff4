"""How findings are worded: what a type expects, what came instead, where, and what was probably meant."""

from __future__ import annotations

import difflib
import json
import math
import re
from typing import TYPE_CHECKING

from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_INT64 = range(-(2**63), 2**63)  # what stores and msgspec can carry
_LONGEST_SHOWN = 60


def quote(text: str) -> str:
    """On one line and printable whatever `text` holds; long text is cut."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def join(path: str, key: str) -> str:
    """`traffic` and `split` are `traffic.split`; a key that is not a plain word is quoted in brackets."""
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{quote(key)}]"
    return f"{path}.{key}" if path else key


def shown(value: object) -> str:
    """A value as a message names it."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value in _INT64 else "a number of more than 64 bits"
        case float():
            return str(value)
        case str():
            return quote(value)
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
    return f"a value of type {type(value).__name__}"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Quoted, at most so many."""
    every = list(names)
    return ", ".join(map(quote, every[:most])) + (
        f" and {len(every) - most} more" if len(every) > most else ""
    )


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """The nearest of `names` as the end of a message; empty where none is near."""
    if not isinstance(word, str):
        return ""
    by_lower = {name.lower(): name for name in names}
    nearest = difflib.get_close_matches(word[:100].lower(), by_lower, n=1)
    return f"; did you mean {quote(by_lower[nearest[0]])}?" if nearest else ""


def quoting_hint(kind: inspect.Type, value: object) -> str:
    """YAML's usual trap, both ways: a bare number where text is meant, a quoted one where a number is."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if isinstance(value, (bool, int, float)) and any(isinstance(one, inspect.StrType) for one in kinds):
        return "; put it in quotes"
    if isinstance(value, str) and any(isinstance(one, (inspect.IntType, inspect.FloatType)) for one in kinds):
        return "; write it without quotes" if re.fullmatch(r"[+-]?[1-9][0-9]{0,17}|0", value) else ""
    if value in ("true", "false") and any(isinstance(one, inspect.BoolType) for one in kinds):
        return "; write it without quotes"
    return ""


def expectation(kind: inspect.Type) -> str:
    """What a type takes, in words."""
    match kind:
        case inspect.Metadata():
            return str((kind.extra_json_schema or {}).get("description") or expectation(kind.type))
        case inspect.UnionType():
            return " or ".join(
                expectation(one) for one in kind.types if not isinstance(one, inspect.NoneType)
            )
        case inspect.LiteralType():
            return ("" if len(kind.values) == 1 else "one of ") + ", ".join(
                quote(str(v)) for v in kind.values
            )
        case inspect.StrType():
            return "text that is not empty" if kind.min_length else "text"
        case inspect.IntType():
            return f"a whole number{_between(kind.ge, kind.le)}"
        case inspect.FloatType():
            return f"a number{_between(kind.ge, kind.le)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType():
            return "a list that is not empty" if kind.min_length else "a list"
        case inspect.DictType():
            return "a mapping that is not empty" if kind.min_length else "a mapping"
        case inspect.StructType():
            return "a mapping"
    raise NotImplementedError(f"documents have no {kind!r}")


def accepts(kind: inspect.Type, value: object) -> bool:
    """Whether a scalar type takes `value`; a container type takes nothing here."""
    match kind:
        case inspect.Metadata():
            return accepts(kind.type, value)
        case inspect.StrType():
            return isinstance(value, str) and _is_unicode(value) and _has_form(kind, value)
        case inspect.LiteralType():
            return isinstance(value, str) and value in kind.values
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return _is_int(value) and _in_range(kind, value)
        case inspect.FloatType():
            return (_is_int(value) or (isinstance(value, float) and math.isfinite(value))) and _in_range(
                kind, value
            )
    return False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _in_range(kind: inspect.IntType | inspect.FloatType, value: object) -> bool:
    assert isinstance(value, (int, float))
    return (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)


def _has_form(kind: inspect.StrType, value: str) -> bool:
    long_enough = kind.min_length is None or len(value) >= kind.min_length
    return long_enough and (kind.pattern is None or re.search(kind.pattern, value) is not None)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell and no store can carry
        return False
    return True


def _between(least: float | None, most: float | None) -> str:
    if least is None:
        return ""
    return f" of at least {least:g}" if most is None else f" from {_plain(least)} to {_plain(most)}"


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
