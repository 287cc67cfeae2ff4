"""Documents in files, as operators and their repositories keep them: YAML, also several in a stream, JSON and
XML; files, folders and standard input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.files import MAX_FILE_BYTES, decode_text, parse_json
from gateway.config.kinds import GATEWAY, DocumentName, Kind, KindUnclear, NameInvalid, kind_of, model_name
from gateway.config.wording import did_you_mean, listed, shown
from gateway.config.xml_document import parse_xml
from gateway.config.yaml12 import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_STREAM_BYTES: Final = 64 << 20  # of a file with many documents, each of which may have 1 MiB
SUFFIXES: Final = (".yaml", ".yml", ".json", ".xml")
# A model's folder, as `serve --models` takes it: the folder's name is the model's.
_NAMELESS: Final = frozenset({"model.yaml", "model.yml", "model.json"})
_MARKER = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)  # in YAML it ends whatever it stands in
_EMPTY_PART = re.compile(r"(?:[ \t]*(?:#.*|%.*|\.\.\.[ \t]*)?(?:\r?\n|\Z))*\Z")
_ORIGIN = re.compile(
    r"^(?:# |<!-- )crossgate: (\S+) generation ([0-9]{1,10}), revision ([0-9]{1,18})\b", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class FileDocument:
    """`where` is how messages name it. `origin` is the generation that the file says it was got from, and
    `origin_revision` that of the store, which tells one store's generation from another's; 0 where it says
    nothing.
    """

    where: str
    name: DocumentName
    data: dict[str, Any]
    origin: int = 0
    origin_revision: int = 0


@dataclass(frozen=True, slots=True)
class FileProblem:
    where: str
    problem: Problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class FilesInvalid(Exception):
    """What is wrong with files, before any document is validated. Nothing of them is used."""

    def __init__(self, problems: Sequence[FileProblem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def origin_line(name: DocumentName, generation: int, revision: int) -> str:
    """What says, as a comment in a file, which generation it was got from."""
    return f"crossgate: {name} generation {generation}, revision {revision}"


def read_documents(
    paths: Sequence[str], kind: Kind | None = None, standard_input: bytes | None = None
) -> tuple[FileDocument, ...]:
    """Read files, folders and, as `-`, standard input. In folders, at any depth, that is every file with one
    of the SUFFIXES, except in folders of versions, whose name is a number, and hidden ones.

    Raises:
        FilesInvalid: with every problem of every file, also where two have the same document.
    """
    found: list[FileDocument] = []
    problems: list[FileProblem] = []
    for path in paths:
        try:
            files = [path] if path == "-" else [str(each) for each in _files(Path(path))]
        except DocumentInvalid as error:
            problems += [FileProblem(path, problem) for problem in error.problems]
            continue
        for file in files:
            found += _read_file(file, kind, standard_input, problems)
    first: dict[DocumentName, str] = {}  # {name: where}
    for document in found:
        if document.name in first:
            what = f"{document.name} is already in {first[document.name]}"
            problems.append(FileProblem(document.where, Problem("", what)))
        first.setdefault(document.name, document.where)
    if problems:
        raise FilesInvalid(problems)
    return tuple(found)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        below = (each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
        return sorted(each for each in below if not _is_passed_over(each.relative_to(path)))
    if path.suffix in SUFFIXES or not path.exists():
        return [path]  # a file that is not there is reported when it is read
    kinds = f"a folder, a file with the suffix {', '.join(SUFFIXES)}, or - for standard input"
    raise DocumentInvalid([Problem("", f"expected {kinds}")])


def _is_passed_over(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or any(
        part.isdecimal() for part in path.parts[:-1]
    )


def _read_file(
    file: str, kind: Kind | None, standard_input: bytes | None, problems: list[FileProblem]
) -> Iterator[FileDocument]:
    where = "standard input" if file == "-" else file
    try:
        content = (standard_input or b"") if file == "-" else _content(Path(file))
        parts = _parts(decode_text(content, MAX_STREAM_BYTES), Path(file).suffix)
    except OSError as error:
        problems.append(FileProblem(where, Problem("", error.strerror or str(error))))
        return
    except DocumentInvalid as error:
        problems += [FileProblem(where, problem) for problem in error.problems]
        return
    for number, part in enumerate(parts, 1):
        at = f"{where}, document {number}" if len(parts) > 1 else where
        try:
            yield _read_part(at, part, Path(file), kind)
        except DocumentInvalid as error:
            problems += [FileProblem(at, problem) for problem in error.problems]
        except (KindUnclear, NameInvalid) as error:
            problems.append(FileProblem(at, Problem("", str(error))))


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_STREAM_BYTES + 1)


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    suffix: str
    line: int = 0  # lines of the file before it


def _parts(text: str, suffix: str) -> list[_Part]:
    if suffix not in SUFFIXES:  # standard input
        suffix = {"{": "", "<": ".xml"}.get(text.lstrip()[:1], ".yaml")
        suffix = suffix or _json_or_yaml(text)
    if suffix in (".json", ".xml"):
        return [_Part(text, suffix)]
    parts: list[_Part] = []
    begin, line = 0, 0
    for marker in (*_MARKER.finditer(text), None):
        end = marker.start() if marker is not None else len(text)
        piece = text[begin:end]
        if not _EMPTY_PART.match(piece):
            parts.append(_Part(piece, suffix, line))
        line += piece.count("\n")
        begin = marker.end() if marker is not None else end
    return parts


def _json_or_yaml(text: str) -> str:
    """Which one begins with a brace: YAML may, and has most of JSON, but not all."""
    try:
        parse_json(text)
    except DocumentInvalid:
        return ".yaml"
    return ".json"


def _read_part(where: str, part: _Part, file: Path, kind: Kind | None) -> FileDocument:
    if len(part.text) > MAX_FILE_BYTES:
        raise DocumentInvalid([Problem("", f"expected at most {MAX_FILE_BYTES} bytes in a document")])
    nameless = file.name in _NAMELESS
    known = kind or ("model" if nameless else None)
    match part.suffix:
        case ".json":
            data = parse_json(part.text)
        case ".xml":
            data = parse_xml(part.text, known)
        case _:
            data = _parse_yaml(part)
    if not isinstance(data, dict):
        raise DocumentInvalid([Problem("", f"expected a mapping, got {shown(data)}")])
    known = known or kind_of(data)
    name = _name_of(known, data, file.absolute().parent.name if nameless else "")
    key = "model" if known == "model" else "access"
    if known != "gateway" and key not in data:
        data = {key: name.name, **data}
    origin = _ORIGIN.search(part.text)
    if origin is None or origin[1] != str(name):
        return FileDocument(where, name, data)
    return FileDocument(where, name, data, int(origin[2]), int(origin[3]))


def _parse_yaml(part: _Part) -> object:
    try:
        return parse_yaml(part.text)
    except DocumentInvalid:  # once more, so that messages count the lines of the file
        return parse_yaml("\n" * part.line + part.text)


def _name_of(kind: Kind, data: dict[str, Any], folder: str) -> DocumentName:
    if kind == "gateway":
        return GATEWAY
    named = data.get(kind, folder)
    if named == "":
        keys = ", ".join(listed([key]) for key in data if did_you_mean(key, [kind]))
        hint = f"; did you mean {keys}?" if keys else ""
        raise DocumentInvalid([Problem(kind, f"is missing; expected the document's name{hint}")])
    if not isinstance(named, str):
        raise DocumentInvalid([Problem(kind, f"expected a name, got {shown(named)}; put it in quotes")])
    try:
        return DocumentName(kind, model_name(named).name)
    except NameInvalid as error:
        raise DocumentInvalid([Problem(kind, str(error))]) from None
