"""A model's document as a file: `model.yaml` or `model.json`, read into plain data for `validate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.wording import listed, quote
from gateway.config.yaml12 import at_line, parse_yaml, too_deep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_NAMES: Final = ("model.yaml", "model.json")
MAX_FILE_BYTES: Final = 1 << 20


def find_model_file(directory: Path) -> Path | None:
    """The document of a model's directory, if it has one. Raises DocumentInvalid where it has two."""
    found = [path for name in FILE_NAMES if (path := directory / name).is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DocumentInvalid([Problem("", f"expected one document, got {names}")])
    return found[0] if found else None


def read_model_file(path: Path) -> object:
    """Plain data of a file in the format that its suffix says. Raises DocumentInvalid, and OSError."""
    formats: dict[str, Callable[[str], object]] = {
        ".yaml": parse_yaml,
        ".yml": parse_yaml,
        ".json": parse_json,
    }
    parse = formats.get(path.suffix)
    if parse is None:
        raise DocumentInvalid([Problem("", f"expected a file with the suffix {listed(formats)}")])
    return parse(read_text(path))


def read_text(path: Path) -> str:
    """The file's text. Raises DocumentInvalid for what is too large or not UTF-8, and OSError."""
    with path.open("rb") as file:
        return decode_text(file.read(MAX_FILE_BYTES + 1))


def decode_text(content: bytes, most_bytes: int = MAX_FILE_BYTES) -> str:
    """Raises DocumentInvalid for what is too large or not UTF-8."""
    if len(content) > most_bytes:
        raise DocumentInvalid([Problem("", f"expected at most {most_bytes} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentInvalid([Problem("", f"line {line}: expected UTF-8, got byte {error.start}")]) from None


def parse_json(text: str) -> object:
    """Raises DocumentInvalid for what is not JSON (RFC 8259), and for a key that is written twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise at_line(error.lineno, error.colno, error.msg) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:  # a number of thousands of digits
        raise DocumentInvalid([Problem("", str(error))]) from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) == len(pairs):
        return data
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    raise DocumentInvalid([Problem("", f"the key {quote(key)} is written twice") for key in twice])


def _refuse_constant(name: str) -> object:
    raise DocumentInvalid([Problem("", f"{name} is not JSON")])
