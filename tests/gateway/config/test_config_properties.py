from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import ModelDocument
from gateway.config.errors import DocumentInvalid
from gateway.config.validation import read_with_care, validate

FULL = {
    "version_policy": {"specific": ["1", "3"]},
    "labels": {"stable": "3"},
    "batching": {
        "max_batch_size": 8,
        "max_queue_size": 8,
        "batchable": True,
        "pad": {"ids": {"axis": 1, "value": 0.5, "buckets": [16, 32]}},
    },
    "limits": {"run_timeout_ms": 5, "max_request_bytes": 10},
    "retry": "never",
    "priorities": {"levels": 3, "default": 2},
    "required": True,
    "warm_up": {"runs": 0},
    "trace": {"ratio": 1},
    "instances": [
        {
            "runtime": "loopback",
            "device": "cuda:1",
            "options": {"delay_us": 5, "fail": True, "p": 0.5, "s": ""},
        },
        {"runtime": "onnxruntime", "device": "cpu@numa1"},
        {"runtime": "onnxruntime", "device": "cpu@numa1", "where": {"node": "gpu-*"}},
    ],
    "inputs": [{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


def document_or_error(data, **known):
    try:
        return validate(data, **known)
    except DocumentInvalid as error:
        return error


KEYS = st.sampled_from(
    [
        *ModelDocument.__struct_fields__,
        *(
            "source",
            "latest",
            "split",
            "rules",
            "when",
            "metadata",
            "to",
            "runtime",
            "device",
            "options",
            "where",
        ),
        *("pad", "axis", "buckets", "name", "datatype", "shape", "max_batch_size", "1", "stable", "x"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["1", "stable", "cpu", "onnxruntime", "s3://b/1", "INT8", "auto", 10**400])
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(data=NESTED, versions=st.none() | st.lists(st.sampled_from(["1", "2"])))
@pytest.mark.slow
def test_arbitrary_data_is_a_document_or_invalid(data, versions):
    outcome = document_or_error(data, versions=versions)

    if isinstance(outcome, DocumentInvalid):
        assert len(str(outcome).splitlines()) == len(outcome.problems) > 0
    else:
        assert validate(msgspec.json.decode(msgspec.json.encode(outcome)), versions=versions) == outcome


@st.composite
def one_change(draw):
    """A valid document with one value, anywhere in it, replaced by something else."""
    data = msgspec.to_builtins(validate(FULL, model="m"))
    place = data
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        place[key] = draw(NESTED)
        return data


@settings(max_examples=300, deadline=None)
@given(data=one_change())
@pytest.mark.slow
def test_what_validation_accepts_is_what_msgspec_accepts(data):
    outcome = document_or_error(data)

    if isinstance(outcome, DocumentInvalid):
        assert outcome.problems
    else:
        assert msgspec.convert(data, ModelDocument) == outcome


@settings(max_examples=500, deadline=None)
@given(data=one_change() | NESTED, versions=st.none() | st.lists(st.sampled_from(["1", "3"])))
@pytest.mark.slow
def test_the_short_way_accepts_nothing_that_is_refused_with_care(data, versions):
    outcome = document_or_error(data, versions=versions)

    if not isinstance(outcome, DocumentInvalid):
        assert read_with_care(data, None, versions) == outcome
