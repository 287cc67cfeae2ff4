from __future__ import annotations

import re

import pytest
from google.protobuf import timestamp_pb2

from gateway.config.errors import Problem
from gateway.config.triton import read_config_pbtxt
from gateway.config.triton_fields import HONOURED, Findings, sweep
from protos.model_config_pb2 import ModelConfig


def paths(problems):
    return [problem.path for problem in problems]


def leaves(descriptor, before=()):
    for field in descriptor.fields:
        inner = (*before, field)
        if field.message_type is None:
            yield inner
        elif field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            yield inner
            if value.message_type is not None:
                yield from leaves(value.message_type, inner)
        else:
            yield inner
            yield from leaves(field.message_type, inner)


def without_keys(path):
    """`a` and numbers are the keys and indices that `text_of` makes."""
    return ".".join(part for part in re.split(r"[][.]", path) if part and part != "a" and not part.isdigit())


HARMLESS = {
    "dynamic_batching.default_queue_policy.allow_timeout_override"
}  # a deadline may always be shorter
LEAVES = list(leaves(ModelConfig.DESCRIPTOR))


def text_of(fields):
    """A configuration in which one field is set, to something that is not its default."""
    if not fields:
        return ""
    field, *rest = fields
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        inner = f"value {{ {text_of(rest)} }}" if value.message_type is not None else text_of([value])
        return f"{field.name} {{ {text_of([key])} {inner} }}"
    if field.message_type is not None:
        return f"{field.name} {{ {text_of(rest)} }}"
    if field.enum_type is not None:
        return f"{field.name}: {max(field.enum_type.values_by_number)}"
    kinds = {field.CPPTYPE_STRING: '"a"', field.CPPTYPE_BOOL: "true"}
    return f"{field.name}: {kinds.get(field.cpp_type, '1')}"


@pytest.mark.parametrize("fields", LEAVES, ids=[".".join(f.name for f in fields) for fields in LEAVES])
def test_every_field_is_honoured_or_named(fields):
    name = ".".join(field.name for field in fields)

    config = read_config_pbtxt(text_of(fields), runtime="onnxruntime")

    named = [without_keys(problem.path) for problem in config.unsupported]
    if name in HONOURED - HARMLESS and fields[-1].message_type is None:
        assert config != read_config_pbtxt("", runtime="onnxruntime")
    else:
        assert name in HONOURED or any(f"{name}.".startswith(f"{block}.") for block in named)


def test_honoured_names_are_fields_of_the_format():
    names = {".".join(field.name for field in fields) for fields in LEAVES}

    assert set(HONOURED) - {""} <= names


def test_field_of_a_newer_format_is_refused():
    found = Findings()

    sweep(timestamp_pb2.Timestamp(seconds=3), found)

    assert found.refused == [Problem("seconds", "cannot be honoured: it is not known here")]


def test_reports_name_the_field_with_its_index_and_key():
    text = """
    instance_group [{ kind: KIND_CPU }, { kind: KIND_CPU rate_limiter { resources [{}, { name: "r" }] } }]
    cc_model_filenames { key: "7.5" value: "a" }
    """

    config = read_config_pbtxt(text, runtime="onnxruntime")

    assert paths(config.ignored) == [
        "instance_group[1].rate_limiter.resources[0]",
        "instance_group[1].rate_limiter.resources[1].name",
    ]
    assert paths(config.refused) == ['cc_model_filenames["7.5"]']
