from __future__ import annotations

import msgspec
import pytest

from gateway.config.document import ModelDocument, VersionSource
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.validation import refused_changes, validate
from gateway.config.yaml12 import parse_yaml

DIGEST = "sha256:" + "0a" * 32
DIGITS = f"""
schema: crossgate/v1
model: digits
versions:
  "1": {{source: file:///srv/models/digits-1.zip, digest: "{DIGEST}"}}
  "2": {{source: s3://models/digits-2.zip, digest: "{DIGEST}"}}
labels: {{stable: "1", canary: "2"}}
traffic:
  sticky: {{metadata: x-user}}
  rules: [{{when: {{metadata: {{x-cohort: beta}}}}, to: canary}}]
  split: {{stable: 95, canary: 5}}
instances:
  - {{runtime: onnxruntime, device: cpu,          count: 2, threads: 1}}
  - {{runtime: openvino,    device: openvino:CPU, count: 1, where: {{node: "*"}}, options: {{}}}}
batching: {{max_batch_size: 64, max_queue_delay_us: 0, max_queue_size: 1024}}
deadline: {{default_ms: 1000}}
load: {{mode: always}}
"""


def problems_of(data, **known):
    with pytest.raises(DocumentInvalid) as caught:
        validate(data, **known)
    return caught.value.problems


def test_documented_example_is_valid_and_survives_a_round_trip():
    document = validate(parse_yaml(DIGITS))

    assert document.traffic.split == {"stable": 95, "canary": 5}
    assert document.traffic.rules[0].when.metadata == {"x-cohort": "beta"}
    assert document.instances[0].threads == 1
    assert document.deadline.default_ms == 1000
    assert document.named_versions() == {"1", "2"}
    assert validate(msgspec.json.decode(msgspec.json.encode(document))) == document
    assert msgspec.json.decode(msgspec.json.encode(document), type=ModelDocument) == document


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


def test_every_field_can_be_given():
    document = validate(FULL, model="m", versions=["1", "2", "3"])

    assert document.model == "m"
    assert document.wanted_versions(["1", "2", "3"]) == ("1", "3")
    assert document.instances[0].options == {"delay_us": 5, "fail": True, "p": 0.5, "s": ""}
    assert document.batching.pad["ids"].value == 0.5
    assert isinstance(document.trace.ratio, float)
    assert validate(msgspec.to_builtins(document), versions=["1", "2", "3"]) == document


def source(url):
    return {"versions": {"1": {"source": url}}}


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/m.zip",
        "https://hunter2@host/m.zip",
        "https://host/m.zip?X-Amz-Signature=hunter2",
        "https://host/m.zip?access_token=hunter2",
        "https://host/m.zip?sig=hunter2&sp=r",
        "zip://m::https://user:hunter2@host/m.zip",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    (problem,) = problems_of({"model": "m"} | source(url))

    assert problem.path == "versions.1.source"
    assert "holds credentials" in problem.message
    assert "hunter2" not in str(problem)


def test_url_with_harmless_parameters_is_accepted():
    assert (
        validate({"model": "m"} | source("https://host/m.zip?versionId=3#top")).versions["1"].digest is None
    )


def test_number_too_long_to_print_is_refused():
    (problem,) = problems_of({"model": "m", "deadline": {"default_ms": 10**5000}})

    assert problem.message.endswith("got a number of more than 64 bits")


def test_name_must_be_the_one_it_is_kept_under():
    (problem,) = problems_of({"model": "digit"}, model="digits")

    assert problem == Problem("model", 'expected "digits", under which it is kept, got "digit"')


def test_versions_of_a_directory_are_what_references_may_name():
    data = {"labels": {"a": "3"}, "traffic": {"split": {"12": 1}}, "version_policy": {"specific": ["1", "4"]}}

    paths = [problem.path for problem in problems_of(data, model="m", versions={"1", "2"})]

    assert paths == ["version_policy.specific[1]", "labels.a", "traffic.split.12"]
    assert validate(data, model="m").labels == {"a": "3"}


def test_version_that_the_document_does_not_list_cannot_be_named():
    (problem,) = problems_of({"model": "m", "labels": {"a": "2"}} | source("s3://b/1"))

    assert problem == Problem("labels.a", 'expected a version of this model ("1"), got "2"')


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        (DIGEST, DIGEST, []),
        (None, DIGEST, []),
        (DIGEST, "sha256:" + "1" * 64, ["versions.1.digest"]),
        (DIGEST, None, ["versions.1.digest"]),
    ],
)
def test_digest_of_a_version_never_changes(before, after, paths):
    documents = [
        ModelDocument(model="m", versions={"1": VersionSource(source="s3://b/1", digest=digest)})
        for digest in (before, after)
    ]

    assert [problem.path for problem in refused_changes(*documents)] == paths
    assert refused_changes(documents[0], ModelDocument(model="m")) == ()
