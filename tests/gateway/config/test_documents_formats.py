"""The same document in YAML, JSON and XML, there and back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.difference import canonical, same
from gateway.config.errors import DocumentInvalid
from gateway.config.files import parse_json
from gateway.config.kinds import GATEWAY, DocumentName, kind_of, model_name, type_of, validate_document
from gateway.config.xml_document import XmlUnwritable, parse_xml, write_xml
from gateway.config.yaml12 import parse_yaml
from gateway.config.yaml_writer import write_yaml

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_strategies import ACCESS, GATEWAYS, MODELS, SCALARS

DOCUMENTS = MODELS | GATEWAYS | ACCESS


def named(kind, data):
    return GATEWAY if kind == "gateway" else DocumentName(kind, data[kind])


@given(DOCUMENTS)
def test_documents_of_the_strategies_are_valid(data):
    validate_document(named(kind_of(data), data), data)


@given(DOCUMENTS)
def test_a_document_reads_back_the_same_from_yaml(data):
    assert same(parse_yaml(write_yaml(data, type_of(kind_of(data)))), data)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), SCALARS | st.none(), max_size=5))
def test_any_text_reads_back_the_same_from_yaml(data):
    assert same(parse_yaml(write_yaml(data)), data)


@given(DOCUMENTS)
def test_a_document_reads_back_the_same_from_json(data):
    assert same(parse_json(canonical(data).decode()), data)


@given(DOCUMENTS)
def test_a_document_reads_back_the_same_from_xml(data):
    kind = kind_of(data)
    try:
        text = write_xml(data, kind)
    except XmlUnwritable:
        assert re.search("[\x00-\x1f\ufffe\uffff]", "".join(texts(data)))
        return
    assert same(parse_xml(text), data)
    assert same(parse_xml(text, kind), data)


def texts(data):
    """Every text and key of plain data."""
    if isinstance(data, dict):
        return [*data, *(text for value in data.values() for text in texts(value))]
    if isinstance(data, list):
        return [text for value in data for text in texts(value)]
    return [data] if isinstance(data, str) else []


def test_the_three_formats_say_the_same():
    data = {
        "model": "digits",
        "labels": {"stable": "1", "canary": "2"},
        "traffic": {"split": {"stable": 95, "canary": 5}},
        "instances": [{"runtime": "onnxruntime", "device": "cpu", "options": {"threads": "4", "fast": True}}],
        "trace": {"ratio": 0.5},
    }
    text = """<?xml version="1.0" encoding="UTF-8"?>
    <!-- a comment -->
    <document>
      <model>digits</model>
      <labels><stable>1</stable><canary>2</canary></labels>
      <traffic><split><stable> 95 </stable><canary>5</canary></split></traffic>
      <instances>
        <item>
          <runtime>onnxruntime</runtime><device>cpu</device>
          <options><threads type="text">4</threads><fast>true</fast></options>
        </item>
      </instances>
      <trace><ratio>0.5</ratio></trace>
    </document>"""
    assert parse_xml(text) == parse_json(json.dumps(data)) == data
    assert parse_yaml(write_yaml(data, type_of("model"))) == data


def test_yaml_has_the_declared_order_and_versions_by_number():
    data = {
        "versions": {"10": {"source": "file:///b"}, "9": {"source": "file:///a"}},
        "retry": "never",
        "model": "digits",
        "schema": "crossgate/v1",
    }
    lines = write_yaml(data, type_of("model")).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "schema: crossgate/v1",
        "model: digits",
        "versions:",
        "retry: never",
    ]
    assert lines.index("  '9': {source: 'file:///a'}") < lines.index("  '10': {source: 'file:///b'}")


BOMB = """<!DOCTYPE document [
  <!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
]><document><model>&b;</model></document>"""
OUTSIDE = (
    '<!DOCTYPE document [<!ENTITY a SYSTEM "file:///etc/passwd">]><document><model>&a;</model></document>'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "line 1, column 20: DOCTYPE is not used"),
        (OUTSIDE, "DOCTYPE is not used"),
        ('<!DOCTYPE document SYSTEM "http://127.0.0.1/x.dtd"><document/>', "DOCTYPE is not used"),
        ("<document><model>&nope;</model></document>", "undefined entity"),
        ("<document>\n  <model>digits</modle></document>", "line 2, column"),
        ("", "no element found"),
        ("<net><model>a</model></net>", "expected <document>, got <net>"),
        ('<document xmlns="urn:x"><model>a</model></document>', "expected <document>"),
        ('<document><model name="a"/></document>', "may have no other attribute"),
        ('<document><model type="int">1</model></document>', "may have no other attribute"),
        ("<document><labels><entry>1</entry></labels></document>", "<entry> has a key"),
        ("<document><model>a</model><labels>text<a>1</a></labels></document>", "neither text nor a type"),
        ("<document><model>a</model><model>b</model></document>", '"model" is already there'),
        (
            "<document><model>a</model><inputs><name>x</name></inputs></document>",
            "expected <item> in the list inputs",
        ),
        ("<a>" * 100 + "</a>" * 100, "nested too deeply"),
        ("<document>\ud800</document>", "UTF-8"),
    ],
)
def test_what_is_no_document_in_xml_is_refused_with_its_place(text, words):
    with pytest.raises(DocumentInvalid) as refused:
        parse_xml(text)
    assert words in str(refused.value)


def test_wrong_values_in_xml_are_left_to_validation():
    text = "<document><model>a</model><batching><max_batch_size>many</max_batch_size></batching></document>"
    with pytest.raises(
        DocumentInvalid, match=r'batching.max_batch_size: expected a whole number .* got "many"'
    ):
        validate_document(model_name("a"), parse_xml(text))
    with pytest.raises(DocumentInvalid, match="9999"):
        validate_document(model_name("a"), parse_xml(text.replace("many", "9999")))
    with pytest.raises(DocumentInvalid, match='did you mean "batching"'):
        validate_document(model_name("a"), parse_xml(text.replace("batching", "batchin")))


def test_xml_keys_that_are_no_names_of_elements_are_entries():
    data = {"model": "a", "versions": {"1": {"source": "file:///m"}}, "labels": {"entry": "1", "item": "1"}}
    text = write_xml(data, "model")
    assert '<entry key="1">' in text
    assert '<entry key="entry">1</entry>' in text
    assert parse_xml(text) == data


@pytest.mark.parametrize("text", ["<document/>", "<document></document>", "<document> </document>"])
def test_an_empty_document_in_xml_is_an_empty_mapping(text):
    assert parse_xml(text) == {}
    assert parse_xml(text, "gateway") == {}
