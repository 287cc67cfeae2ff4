from __future__ import annotations

import pytest

from gateway.config.errors import DocumentInvalid
from gateway.config.files import MAX_FILE_BYTES, find_model_file, parse_json, read_model_file


def message_of(call, *arguments):
    with pytest.raises(DocumentInvalid) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.yaml", "labels: {no: '1'}"),
        ("m.yml", "labels: {no: '1'}"),
        ("model.json", '{"labels":{"no":"1"}}'),
    ],
)
def test_file_is_read_by_its_suffix(tmp_path, name, text):
    (tmp_path / name).write_text(text)

    assert read_model_file(tmp_path / name) == {"labels": {"no": "1"}}


def test_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "model.json").write_bytes(b"\xef\xbb\xbf{}")

    assert read_model_file(tmp_path / "model.json") == {}


@pytest.mark.parametrize("name", ["model.yaml", "model.json"])
def test_directory_may_have_one_document(tmp_path, name):
    assert find_model_file(tmp_path) is None

    (tmp_path / name).touch()

    assert find_model_file(tmp_path) == tmp_path / name


def test_directory_with_two_documents_is_refused(tmp_path):
    for name in ("model.yaml", "model.json"):
        (tmp_path / name).touch()

    assert message_of(find_model_file, tmp_path) == "expected one document, got model.yaml and model.json"


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("model.toml", b"", 'expected a file with the suffix ".yaml", ".yml", ".json"'),
        ("model.yaml", b"a: 1\nb: \xff", "line 2: expected UTF-8"),
        ("model.yaml", b"#" * (MAX_FILE_BYTES + 1), "expected at most 1048576 bytes"),
    ],
)
def test_unreadable_file_is_refused(tmp_path, name, content, fragment):
    (tmp_path / name).write_bytes(content)

    assert fragment in message_of(read_model_file, tmp_path / name)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ('{"a": 1,\n "b" 2}', "line 2, column 6: Expecting ':' delimiter"),
        ("", "line 1, column 1: Expecting value"),
        ('{"a": 1, "b": {"c": 1, "c": 2, "c": 3}}', 'the key "c" is written twice'),
        ('{"a": NaN}', "NaN is not JSON"),
        ("9" * 5000, "digits"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_text_that_is_no_json_is_refused(text, fragment):
    assert fragment in message_of(parse_json, text)
