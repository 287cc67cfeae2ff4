"""YAML by the core schema of YAML 1.2, not by PyYAML's YAML 1.1: nothing silently becomes something else.

`no`, `on`, `12:30`, `2024-01-01` and `1_000` are text; so is `010`, which some take for 8 and some for 10.
`1.10` stays a number, which validation refuses where text is meant. Keys are always the text as written.
Tags, duplicate keys and several documents in one file are errors.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.wording import quote

_CORE_TAG: Final = "tag:yaml.org,2002:"
_FIRST_OF_NUMBER: Final = list("-+.0123456789")
# (kind, form, first characters), from YAML 1.2.2 section 10.3.2
_SCALARS: Final[tuple[tuple[str, str, list[str]], ...]] = (
    ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)\Z", _FIRST_OF_NUMBER),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"
        r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z",
        _FIRST_OF_NUMBER,
    ),
)


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes with the core schema's tags; its constructors are never called."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the base class's own kind of declaration


_FORMS: Final = {_CORE_TAG + kind: re.compile(form) for kind, form, _ in _SCALARS}  # {tag: form}
for _kind, _, _first in _SCALARS:
    _CoreLoader.add_implicit_resolver(_CORE_TAG + _kind, _FORMS[_CORE_TAG + _kind], _first)


def parse_yaml(text: str) -> object:
    """An empty file is an empty mapping. Raises DocumentInvalid with line and column."""
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        if node is None:
            return {}
        nodes = _Nodes()
        data = nodes.value(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(str(part) for part in (error.context, error.problem) if part)
        raise at_line(mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, what) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise at_line(line, error.position - text.rfind("\n", 0, error.position), str(error.reason)) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:  # an escape outside Unicode, which PyYAML passes on to chr()
        raise DocumentInvalid([Problem("", str(error))]) from None
    if nodes.problems:
        raise DocumentInvalid(nodes.problems)
    return data


class _Nodes:
    """Turns composed nodes into plain data. An alias shares the value of its anchor."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._done: dict[int, object] = {}  # {id(node): value}; the nodes live as long as their root
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> object:
        if id(node) in self._open:
            self._report(node, "an alias stands inside of what it refers to")
            return None
        if id(node) not in self._done:
            self._open.add(id(node))
            self._done[id(node)] = self._build(node)
            self._open.remove(id(node))
        return self._done[id(node)]

    def _build(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE_TAG}map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE_TAG}seq":
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_CORE_TAG}str":
            return node.value
        if isinstance(node, yaml.ScalarNode) and _is_plain(node):
            match node.tag.removeprefix(_CORE_TAG):
                case "null":
                    return None
                case "bool":
                    return node.value.lower() == "true"
                case "int":
                    return _integer(node.value)
                case "float":
                    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        self._report(node, f"tags such as {quote(node.tag)} are not used in documents")
        return None

    def _mapping(self, node: yaml.MappingNode) -> dict[str, object]:
        data: dict[str, object] = {}
        lines: dict[str, int] = {}  # {key: line}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, "expected text as a key")
                continue
            key = key_node.value
            if key in data:
                self._report(key_node, f"the key {quote(key)} is already on line {lines[key]}")
            lines.setdefault(key, key_node.start_mark.line + 1)
            data[key] = self.value(value_node)
        return data

    def _report(self, node: yaml.Node, what: str) -> None:
        self.problems += at_line(node.start_mark.line + 1, node.start_mark.column + 1, what).problems


def _is_plain(node: yaml.ScalarNode) -> bool:
    """Whether the tag comes from the text itself: `!!bool yes` has the tag, but not the form."""
    form = _FORMS.get(node.tag)
    return form is not None and not node.style and form.match(node.value) is not None


def _integer(text: str) -> int | float:
    if len(text) > 100:
        return float("inf")  # out of every range, without the cost of converting it
    return int(text, 16 if text.startswith("0x") else 10)


def at_line(line: int, column: int, what: str) -> DocumentInvalid:
    """A finding about the text itself, before there are paths."""
    return DocumentInvalid([Problem("", f"line {line}, column {column}: {' '.join(what.split())}")])


def too_deep() -> DocumentInvalid:
    return DocumentInvalid([Problem("", "is nested too deeply")])
