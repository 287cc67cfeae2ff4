"""Files, folders and streams of documents."""

from __future__ import annotations

import json

import pytest

from gateway.config.document_files import FilesInvalid, origin_line, read_documents
from gateway.config.kinds import (
    GATEWAY,
    DocumentName,
    KindUnclear,
    NameInvalid,
    kind_of,
    model_name,
    name_of_key,
    parse_name,
)


def write(folder, **texts):
    """Write files; `__` in a name is a slash and `_yaml` at its end a suffix."""
    for name, text in texts.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def problems(*arguments, **options):
    with pytest.raises(FilesInvalid) as invalid:
        read_documents(*arguments, **options)
    return str(invalid.value)


def test_a_folder_is_read_whole_but_for_versions_and_hidden_files(tmp_path):
    folder = write(
        tmp_path,
        models__digits_yaml="model: digits\n",
        models__iris_json='{"model": "iris"}',
        access__readers_xml="<document><access>readers</access><anonymous>true</anonymous></document>",
        gateway_yml="log_level: debug",
        wine__model_yaml="retry: never",
        wine__1__model_xml="<net/>",
        wine__1__config_json="{}",
        notes_txt="nothing",
    )
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text("{")
    found = {document.name: document.data for document in read_documents([folder])}
    assert found == {
        model_name("digits"): {"model": "digits"},
        model_name("iris"): {"model": "iris"},
        model_name("wine"): {"model": "wine", "retry": "never"},
        DocumentName("access", "readers"): {"access": "readers", "anonymous": True},
        GATEWAY: {"log_level": "debug"},
    }


def test_a_stream_has_several_documents_and_names_them_by_number(tmp_path):
    text = "%YAML 1.2\n---\n# first\nmodel: a\n---\nmodel: b\nretry: |\n  x\n...\n---\n\n--- {model: c}\n"
    folder = write(tmp_path, all_yaml=text)
    documents = read_documents([f"{folder}/all.yaml"])
    assert [document.data for document in documents] == [
        {"model": "a"},
        {"model": "b", "retry": "x\n"},
        {"model": "c"},
    ]
    assert documents[1].where == f"{folder}/all.yaml, document 2"


def test_a_mistake_in_a_stream_is_on_its_own_line_of_the_file(tmp_path):
    folder = write(tmp_path, all_yaml="model: a\n---\nmodel: b\nretry: {\n---\nmodel: [c\n")
    text = problems([f"{folder}/all.yaml"])
    assert "all.yaml, document 2: line 5" in text
    assert "all.yaml, document 3: line 7" in text


def test_every_problem_of_every_file_is_reported(tmp_path):
    folder = write(
        tmp_path, a_yaml="model: [", b_json="[]", c_json="{}", d_yaml="model: a b", e_yaml="model: 7"
    )
    text = problems([folder, str(tmp_path / "missing.yaml"), str(tmp_path / "pyproject")])
    for words in (
        "a.yaml: line",
        "b.json: expected a mapping, got an empty list",
        "c.json: its kind cannot be told",
        'd.yaml: model: "a b" is no name',
        "e.yaml: model: expected a name, got 7; put it in quotes",
        "missing.yaml: No such file or directory",
        "pyproject: No such file or directory",
    ):
        assert words in text


def test_one_document_in_two_files_is_refused_and_both_are_named(tmp_path):
    folder = write(tmp_path, a_yaml="model: digits", b_yaml="model: digits")
    assert f"{folder}/b.yaml: digits is already in {folder}/a.yaml" in problems([folder])


def test_a_file_of_another_kind_is_refused(tmp_path):
    folder = write(tmp_path, a_txt="model: digits")
    assert "expected a folder, a file with the suffix .yaml, .yml, .json, .xml" in problems(
        [f"{folder}/a.txt"]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"model: digits\n",
        b' {"model": "digits"}',
        b"{model: digits}",
        b"{model: digits}\n---\n",
        b"\n<document><model>digits</model></document>",
    ],
)
def test_standard_input_may_be_any_format(content):
    (document,) = read_documents(["-"], standard_input=content.lstrip() if content[1:2] == b"<" else content)
    assert document.data == {"model": "digits"}
    assert document.where == "standard input"


@pytest.mark.parametrize("content", [b"\xff", b"model: '" + b"x" * (1 << 20) + b"'\n"])
def test_what_is_no_text_or_too_long_is_refused(content):
    assert "standard input: " in problems(["-"], standard_input=content)


@pytest.mark.slow
def test_a_stream_may_be_longer_than_one_document():
    content = b"---\n".join(b"model: m%d\nretry: '%s'\n" % (i, b"x" * 1000) for i in range(1500))
    assert len(read_documents(["-"], standard_input=content)) == 1500


def test_a_file_knows_which_generation_it_was_got_from(tmp_path):
    origin = origin_line(model_name("digits"), 12, 345)
    folder = write(
        tmp_path,
        a_yaml=f"# {origin}, by anna\nmodel: digits\n---\nmodel: iris\n",
        b_xml=f"<!-- {origin} --><document><model>digits</model></document>",
        c_yaml=f"# {origin}\nmodel: other\n",
    )
    documents = read_documents([f"{folder}/a.yaml"])
    assert [(each.origin, each.origin_revision) for each in documents] == [(12, 345), (0, 0)]
    assert [each.origin for each in read_documents([f"{folder}/b.xml"])] == [12]
    assert [each.origin for each in read_documents([f"{folder}/c.yaml"])] == [0]


def test_kind_says_what_a_document_is_that_does_not_say_it_itself(tmp_path):
    folder = write(tmp_path, a_yaml="trace: {ratio: 1}", b_yaml="retry: never")
    (document,) = read_documents([f"{folder}/a.yaml"], "gateway")
    assert document.name == GATEWAY
    assert "model: is missing" in problems([f"{folder}/b.yaml"], "model")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"model": "access"}, "model"),
        ({"access": "open"}, "gateway"),
        ({"access": "enforce", "trace": {}}, "gateway"),
        ({"access": "open", "tokens": []}, "access"),
        ({"access": "readers"}, "access"),
        ({"frozen": {}}, "gateway"),
    ],
)
def test_the_kind_is_told_by_the_keys(data, kind):
    assert kind_of(data) == kind


@pytest.mark.parametrize("data", [{}, {"schema": "crossgate/v1"}, {"trace": {}}, {"retry": "never"}])
def test_a_kind_that_cannot_be_told_asks_for_the_option(data):
    with pytest.raises(KindUnclear, match="--kind"):
        kind_of(data)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("digits", "models/digits"),
        ("models/digits", "models/digits"),
        ("policies/gateway", "policies/gateway"),
        ("access/readers", "access/readers"),
        ("policies", "models/policies"),
    ],
)
def test_names_are_read_and_shown_alike(text, key):
    name = parse_name(text)
    assert name.key == key
    assert parse_name(str(name)) == name == name_of_key(key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no name"),
        ("a b", "is no name"),
        ("../x", "is no document"),
        ("policies/gatewy", 'did you mean "policies/gateway"'),
        ("model/x", 'did you mean "models"'),
        ("access/-", "is no name"),
    ],
)
def test_names_that_are_none_say_what_would_be(text, words):
    with pytest.raises(NameInvalid) as invalid:
        parse_name(text)
    assert words in str(invalid.value)
    assert name_of_key(text) is None


def test_json_of_a_document_is_a_valid_yaml_file(tmp_path):
    data = {"model": "digits", "labels": {"stable": "1"}}
    folder = write(tmp_path, a_yaml=json.dumps(data))
    assert read_documents([folder])[0].data == data
