"""How commands print documents, what differs between two, and what was done."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

import typer

from gateway.config.difference import differences
from gateway.config.document_files import origin_line
from gateway.config.history import printable
from gateway.config.kinds import type_of
from gateway.config.schema import ordered
from gateway.config.xml_document import write_xml
from gateway.config.yaml_writer import write_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.change import Committed
    from gateway.config.history import Recorded
    from gateway.config.kinds import DocumentName
    from gateway.config.transaction import Author

Format = Literal["yaml", "json", "xml"]
_COLOURS: Final = {"+": "green", "-": "red", "~": "yellow"}
_MOST_LINES: Final = 20  # of documents that one commit changed


def print_committed(committed: Committed, author: Author, *, as_json: bool = False) -> None:
    """`digits: generation 12, revision 3456 (by anna: raise canary)`, a line for each document."""
    if as_json:
        print(json.dumps(committed_json(committed)))
        return
    said = f"(by {author.by}{': ' + author.why if author.why else ''})"
    generations = [*committed.generations.items()]
    for name, generation in generations[:_MOST_LINES]:
        print(f"{name}: generation {generation}, revision {committed.revision} {said}")
    if len(generations) > _MOST_LINES:
        print(f"and {len(generations) - _MOST_LINES} more at revision {committed.revision} {said}")


def say_unchanged(what: str, *, as_json: bool = False) -> None:
    """Nothing had to be written."""
    print(json.dumps({"generations": {}}) if as_json else f"unchanged: {what}")


def committed_json(committed: Committed) -> dict[str, Any]:
    return {
        "revision": committed.revision,
        "change": committed.change,
        "generations": {str(name): generation for name, generation in committed.generations.items()},
    }


def print_differences(title: str, before: object, after: object) -> None:
    """Coloured on a terminal."""
    print(title)
    for each in differences(before, after):
        line = f"  {each}"
        print(typer.style(line, fg=_COLOURS[each.sign]) if sys.stdout.isatty() else line)


def show_document(
    name: DocumentName, data: Mapping[str, Any], output: Format, recorded: Recorded | None = None
) -> str:
    """A file that `apply` takes; with `recorded`, it says which generation it was got from. Raises
    XmlUnwritable.
    """
    kind = type_of(name.kind)
    said = ""
    if recorded is not None:
        origin = origin_line(name, recorded.entry.generation, recorded.revision)
        said = f"{origin}, by {printable(recorded.entry.by)}"
    match output:
        case "json":
            return json.dumps(ordered(dict(data), kind), indent=2) + "\n"
        case "xml":
            comment = f"<!-- {said.replace('--', '- -')} -->\n" if said else ""
            return comment + write_xml(dict(data), name.kind)
        case "yaml":
            return (f"# {said}\n" if said else "") + write_yaml(dict(data), kind)


def show_documents(shown: Iterable[str]) -> str:
    """Several YAML documents as one stream."""
    return "---\n".join(shown)
