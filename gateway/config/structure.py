"""Reads plain data as msgspec structs, and goes on after an error: msgspec itself stops at the first.

The struct types alone drive it, so a new field of the document needs no code here. It knows the kinds of type
that documents are made of: structs, text, numbers, literals, unions, tuples and text-keyed dicts, with the
constraints `pattern`, `min_length`, `ge` and `le`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec import NODEFAULT, Struct, inspect

from gateway.config.errors import Problem
from gateway.config.wording import accepts, did_you_mean, expectation, join, quoting_hint, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HINTS: Final = 50  # of what was meant, in one document
WRONG: Final = object()  # what a reading yields that has problems


@dataclass(frozen=True, slots=True)
class Reference:
    """Text that has to name something else in the document."""

    path: str
    refers_to: str  # as in `Meta(extra={"refers_to": ...})`
    text: str


class Reading:
    """One pass over one document. The findings are in the order of the struct's fields."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.structs: dict[str, Struct] = {}  # {path: struct}, only those without a problem inside
        self.references: list[Reference] = []

    def read(self, value: object, kind: inspect.Type, path: str, expected: str | None = None) -> Any:
        """`value` as `kind`, or WRONG after reporting why not. `expected` replaces the type's own wording."""
        match kind:
            case inspect.Metadata():
                return self._read_annotated(value, kind, path)
            case inspect.StructType() if isinstance(value, dict):
                return self._read_struct(value, kind, path)
            case inspect.DictType() if isinstance(value, dict):
                return self._read_dict(value, kind, path, expected)
            case inspect.VarTupleType() if isinstance(value, (list, tuple)):
                return self._read_list(value, kind, path)
            case inspect.UnionType():
                return self._read_union(value, kind, path)
            case _ if accepts(kind, value):
                return float(value) if isinstance(kind, inspect.FloatType) else value  # type: ignore[arg-type]  # accepts() saw a number
        self._mismatch(value, kind, path, expected)
        return WRONG

    def _mismatch(self, value: object, kind: inspect.Type, path: str, expected: str | None = None) -> None:
        message = f"expected {expected or expectation(kind)}, got {shown(value)}{quoting_hint(kind, value)}"
        literals = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        names = [str(name) for one in literals if isinstance(one, inspect.LiteralType) for name in one.values]
        self.problems.append(Problem(path, message + did_you_mean(value, names)))

    def _read_annotated(self, value: object, kind: inspect.Metadata, path: str) -> Any:
        described = (kind.extra_json_schema or {}).get("description")
        found = self.read(value, kind.type, path, described)
        refers_to = (kind.extra or {}).get("refers_to")
        if refers_to is not None and found is not WRONG:
            self.references.append(Reference(path, refers_to, found))
        return found

    def _read_struct(self, data: dict[object, object], kind: inspect.StructType, path: str) -> Any:
        names = [field.name for field in kind.fields]
        self._report_unknown_keys(data, names, path)
        values: dict[str, object] = {}
        complete = all(key in names for key in data)
        for field in kind.fields:
            at = join(path, field.name)
            if field.name in data:
                values[field.name] = self.read(data[field.name], field.type, at)
                complete = complete and values[field.name] is not WRONG
            elif field.default is NODEFAULT and field.default_factory is NODEFAULT:
                self.problems.append(Problem(at, f"is missing; expected {expectation(field.type)}"))
                complete = False
        if not complete:
            return WRONG
        self.structs[path] = kind.cls(**values)
        return self.structs[path]

    def _report_unknown_keys(self, data: dict[object, object], names: Sequence[str], path: str) -> None:
        for key in data:
            if not isinstance(key, str):
                self._report_key(key, path)
            elif key not in names:
                # looking for what was meant takes long, and nobody reads thousands of hints
                near = did_you_mean(key, names) if len(self.problems) < MAX_HINTS else ""
                nearest = near or f"; the keys here are {', '.join(names)}"
                self.problems.append(Problem(join(path, key), f"is not a known key{nearest}"))

    def _report_key(self, key: object, path: str) -> None:
        hint = "; put it in quotes" if isinstance(key, (int, float)) else ""
        self.problems.append(
            Problem(join(path, shown(key)), f"expected text as a key, got {shown(key)}{hint}")
        )

    def _read_dict(
        self, data: dict[object, object], kind: inspect.DictType, path: str, expected: str | None
    ) -> Any:
        if kind.min_length is not None and len(data) < kind.min_length:
            self._mismatch(data, kind, path, expected)
            return WRONG
        found: dict[str, object] = {}
        complete = True
        for key, value in data.items():
            if not isinstance(key, str):
                self._report_key(key, path)
                complete = False
                continue
            at = join(path, key)
            complete = self.read(key, kind.key_type, at) is not WRONG and complete
            found[key] = self.read(value, kind.value_type, at)
            complete = complete and found[key] is not WRONG
        return found if complete else WRONG

    def _read_list(self, data: Sequence[object], kind: inspect.VarTupleType, path: str) -> Any:
        if kind.min_length is not None and len(data) < kind.min_length:
            self._mismatch(data, kind, path)
            return WRONG
        found = tuple(self.read(item, kind.item_type, f"{path}[{i}]") for i, item in enumerate(data))
        return WRONG if any(item is WRONG for item in found) else found

    def _read_union(self, value: object, kind: inspect.UnionType, path: str) -> Any:
        if value is None and any(isinstance(one, inspect.NoneType) for one in kind.types):
            return None
        rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        if len(rest) == 1:  # "or null" would only distract from what is wrong
            return self.read(value, rest[0], path)
        for one in rest:
            if accepts(one, value):
                return value
        self._mismatch(value, kind, path)
        return WRONG
