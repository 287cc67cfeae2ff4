"""Documents as XML.

The root is `<document>`. An element is a key, its content the value; `<entry key="...">` is a key that no
element can have as its name; `<item>` is an item of a list. Text becomes a number or a truth value where the
document's types take one; `type="text"` keeps it text and `type="null"` is null. Nothing else of XML is used:
other attributes, text beside elements, DOCTYPE and with it every entity are refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from msgspec import inspect

from gateway.config.difference import same
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.kinds import Kind, KindUnclear, kind_of, type_of
from gateway.config.schema import child, container, ordered, read_scalar
from gateway.config.wording import quote
from gateway.config.yaml12 import at_line, too_deep

_MAX_DEPTH: Final = 50
_ELEMENT = re.compile(r"(?!xml)[A-Za-z_][A-Za-z0-9._-]{0,99}", re.IGNORECASE)
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    line: int
    column: int
    children: list[_Element] = field(default_factory=list)
    text: str = ""


class XmlUnwritable(Exception):
    """The document has characters that XML cannot carry."""


def parse_xml(text: str, kind: Kind | None = None) -> object:
    """Plain data. The kind decides what is a number; without it, the keys tell the kind. Raises
    DocumentInvalid with line and column.
    """
    root = _parse(text)
    if root.name != "document" or root.attributes:
        raise at_line(root.line, root.column, f"expected <document>, got <{root.name}>")
    if kind is None:
        try:
            kind = kind_of({each.name: each.text.strip() for each in root.children})
        except KindUnclear:
            kind = None
    problems: list[Problem] = []
    data = _value(root, type_of(kind) if kind is not None else None, problems)
    if problems:
        raise DocumentInvalid(problems)
    return {} if isinstance(data, str) and not data.strip() else data


def write_xml(data: dict[str, Any], kind: Kind) -> str:
    """What `parse_xml` reads back as the same. Raises XmlUnwritable."""
    lines = ["<document>"]
    _write_children(ordered(data, type_of(kind)), type_of(kind), 1, lines)
    return "\n".join([*lines, "</document>", ""])


def _parse(text: str) -> _Element:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[_Element] = []
    roots: list[_Element] = []

    def here(what: str) -> DocumentInvalid:
        return at_line(parser.CurrentLineNumber, parser.CurrentColumnNumber + 1, what)

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) >= _MAX_DEPTH:
            raise too_deep()
        element = _Element(name, attributes, parser.CurrentLineNumber, parser.CurrentColumnNumber + 1)
        (open_elements[-1].children if open_elements else roots).append(element)
        open_elements.append(element)

    def end(name: str) -> None:
        open_elements.pop()

    def characters(data: str) -> None:
        open_elements[-1].text += data

    def refuse_doctype(*declaration: object) -> None:
        raise here("DOCTYPE is not used in documents")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise at_line(error.lineno, error.offset + 1, expat.ErrorString(error.code)) from None
    except UnicodeEncodeError:
        raise DocumentInvalid([Problem("", "expected UTF-8, got half a character")]) from None
    return roots[0]


def _value(element: _Element, kind: inspect.Type | None, problems: list[Problem]) -> object:
    wanted = element.attributes.get("type")
    if not _is_used_right(element):
        may = 'type="text" or type="null", and <entry> has a key'
        _report(element, problems, f"<{element.name}> may have no other attribute than {may}")
        return None
    if element.children:
        if wanted is not None or element.text.strip():
            _report(element, problems, f"<{element.name}> has elements: it can have neither text nor a type")
        build = _list if _is_list(element, kind) else _mapping
        return build(element, kind, problems)
    if wanted is not None:
        return element.text if wanted == "text" else None
    if not element.text.strip():
        match container(kind):
            case inspect.VarTupleType():
                return []
            case inspect.StructType() | inspect.DictType():
                return {}
    return read_scalar(kind, element.text)


def _is_used_right(element: _Element) -> bool:
    return (
        element.attributes.keys() <= {"type", "key"}
        and element.attributes.get("type") in (None, "text", "null")
        and ("key" in element.attributes) == _is_entry(element)
    )


def _is_entry(element: _Element) -> bool:
    return element.name == "entry"


def _is_list(element: _Element, kind: inspect.Type | None) -> bool:
    """By the types; where they say nothing, a mapping has no key `item`."""
    if (known := container(kind)) is not None:
        return isinstance(known, inspect.VarTupleType)
    return all(each.name == "item" for each in element.children)


def _list(element: _Element, kind: inspect.Type | None, problems: list[Problem]) -> list[object]:
    for each in element.children:
        if each.name != "item":
            _report(each, problems, f"expected <item> in the list {element.name}, got <{each.name}>")
    return [_value(each, child(kind, i), problems) for i, each in enumerate(element.children)]


def _mapping(element: _Element, kind: inspect.Type | None, problems: list[Problem]) -> dict[str, object]:
    data: dict[str, object] = {}
    for each in element.children:
        key = each.attributes.get("key", "") if _is_entry(each) else each.name
        if key in data:
            _report(each, problems, f"the key {quote(key)} is already there")
        data[key] = _value(each, child(kind, key), problems)
    return data


def _report(element: _Element, problems: list[Problem], what: str) -> None:
    problems += at_line(element.line, element.column, what).problems


def _write_children(data: Any, kind: inspect.Type | None, depth: int, lines: list[str]) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            _write_element(key, value, child(kind, key), depth, lines)
    else:
        for i, value in enumerate(data):
            _write_element("item", value, child(kind, i), depth, lines)


def _write_element(key: str, value: Any, kind: inspect.Type | None, depth: int, lines: list[str]) -> None:
    indent = "  " * depth
    named = _ELEMENT.fullmatch(key) is not None and key != "entry"
    name = key if named else "entry"
    opening = name if named else f"entry key={quoteattr(_writable(key))}"
    if isinstance(value, (dict, list)) and value:
        lines.append(f"{indent}<{opening}>")
        _write_children(value, kind, depth + 1, lines)
        lines.append(f"{indent}</{name}>")
    elif isinstance(value, (dict, list)):
        lines.append(f"{indent}<{opening}/>")
    elif value is None:
        lines.append(f'{indent}<{opening} type="null"/>')
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        ambiguous = isinstance(value, str) and not same(read_scalar(kind, text), value)
        typed = ' type="text"' if ambiguous or (isinstance(value, str) and container(kind)) else ""
        shown = escape(_writable(text), {"\r": "&#13;"})
        lines.append(f"{indent}<{opening}{typed}>{shown}</{name}>")


def _writable(text: str) -> str:
    if (found := _UNWRITABLE.search(text)) is not None:
        raise XmlUnwritable(f"XML cannot carry the character {found[0]!r} of {quote(text)}")
    return text
