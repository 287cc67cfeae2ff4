from __future__ import annotations

import math

import pytest

from gateway.config.errors import DocumentInvalid
from gateway.config.validation import validate


def problems_of(data, **known):
    with pytest.raises(DocumentInvalid) as caught:
        validate(data, **known)
    return caught.value.problems


def instance(**fields):
    return {"instances": [{"runtime": "onnxruntime", "device": "cpu", **fields}]}


def source(url):
    return {"versions": {"1": {"source": url}}}


def tensors(side, *shapes):
    return {side: [{"name": "x", "datatype": "FP32", "shape": list(shape)} for shape in shapes]}


def padded(**pad):
    return {"batching": {"pad": pad}}


# (document without its model, [(path, fragment of the message)])
WRONG = [
    ({"labls": {}}, [("labls", 'did you mean "labels"?')]),
    ({"zzz": 1}, [("zzz", "the keys here are model, schema, versions")]),
    ({"Retry": "never"}, [("Retry", 'did you mean "retry"?')]),
    ({1: 2}, [("1", "expected text as a key, got 1; put it in quotes")]),
    ({None: 2}, [('["nothing (null)"]', "expected text as a key, got nothing (null)")]),
    ({"model": "-a"}, [("model", "expected a name of up to 100 letters")]),
    ({"model": "a\n"}, [("model", r'got "a\n"')]),
    ({"model": 7}, [("model", "got 7; put it in quotes")]),
    ({"schema": "crossgate/v2", "zzz": 1}, [("schema", '"crossgate/v2" is not supported by this release')]),
    ({"schema": "crossgate/1"}, [("schema", 'did you mean "crossgate/v1"?')]),
    ({"labels": None}, [("labels", "expected a mapping, got nothing (null)")]),
    (
        {"labels": {"stable": 1}},
        [("labels.stable", "got 1; put it in quotes")],
    ),
    ({"labels": {"stable": 1.1}}, [("labels.stable", "got 1.1; put it in quotes")]),
    ({"labels": {"stable": "1.10"}}, [("labels.stable", 'got "1.10"')]),
    ({"labels": {"stable": "010"}}, [("labels.stable", 'got "010"')]),
    ({"labels": {"7": "7"}}, [("labels.7", "expected a label")]),
    ({"labels": {"a b": "7"}}, [('labels["a b"]', "expected a label")]),
    ({"versions": {1: {"source": "s3://b/1.zip"}}}, [("versions.1", "put it in quotes")]),
    ({"versions": {"1.10": {"source": "s3://b/1.zip"}}}, [('versions["1.10"]', "expected a version")]),
    ({"versions": {"1": {}}}, [("versions.1.source", "is missing; expected text")]),
    ({"versions": {"1": "s3://b/1.zip"}}, [("versions.1", "expected a mapping, got")]),
    (source(""), [("versions.1.source", "expected text that is not empty")]),
    (source("/m/1.zip"), [("versions.1.source", 'did you mean "file:///m/1.zip"?')]),
    (source("m/1.zip"), [("versions.1.source", "expected a URL such as")]),
    (source("https://[x/1.zip"), [("versions.1.source", "expected a URL: ")]),
    (
        {"versions": {"1": {"source": "s3://b/1", "digest": "sha256:0"}}},
        [("versions.1.digest", "expected sha256: and 64")],
    ),
    (
        source("s3://b/1") | {"version_policy": {"all": True}},
        [("version_policy", "but this document has versions")],
    ),
    ({"version_policy": {}}, [("version_policy", "exactly one of")]),
    ({"version_policy": {"latest": 1, "all": True}}, [("version_policy", "exactly one of")]),
    ({"version_policy": {"latest": 0}}, [("version_policy.latest", "a whole number from 1 to 1000, got 0")]),
    ({"version_policy": {"specific": [3]}}, [("version_policy.specific[0]", "got 3; put it in quotes")]),
    ({"traffic": {"split": {"stable": 0}}, "labels": {"stable": "1"}}, [("traffic.split", "weight above 0")]),
    ({"traffic": {"split": {"1": -1}}}, [("traffic.split.1", "from 0 to 1000000, got -1")]),
    (
        {"traffic": {"split": {"1": True}}},
        [("traffic.split.1", "from 0 to 1000000, got true")],
    ),
    ({"traffic": {"split": {"1": "5"}}}, [("traffic.split.1", 'got "5"; write it without quotes')]),
    ({"traffic": {"split": {"1": 0.5}}}, [("traffic.split.1", "got 0.5")]),
    (
        {"traffic": {"split": {"canry": 1}}, "labels": {"stable": "1", "canary": "2"}},
        [
            (
                "traffic.split.canry",
                '("stable", "canary"), got "canry"; did you mean "canary"?',
            )
        ],
    ),
    ({"traffic": {"split": {"canary": 1}}}, [("traffic.split.canary", "(there is none)")]),
    ({"traffic": {"split": {"canary": 1}}, "labels": {"canary": 2}}, [("labels.canary", "put it in quotes")]),
    ({"traffic": {"rules": [{"to": "1"}]}}, [("traffic.rules[0].when", "is missing; expected a mapping")]),
    (
        {"traffic": {"rules": [{"when": {"metadata": {}}, "to": "nope"}]}},
        [
            ("traffic.rules[0].when.metadata", "a mapping that is not empty, got an empty mapping"),
            ("traffic.rules[0].to", 'got "nope"'),
        ],
    ),
    ({"traffic": {"sticky": {"metadata": "X-User"}}}, [("traffic.sticky.metadata", "in lower case")]),
    (
        {"traffic": {"sticky": {"metadata": "x-bin"}}},
        [("traffic.sticky.metadata", "without the prefix")],
    ),
    ({"traffic": {"sticky": "x-user"}}, [("traffic.sticky", 'expected a mapping, got "x-user"')]),
    ({"instances": {}}, [("instances", "expected a list, got an empty mapping")]),
    (instance(runtime="onyxruntime"), [("instances[0].runtime", 'did you mean "onnxruntime"?')]),
    (instance(count=0), [("instances[0].count", "from 1 to 1024")]),
    (instance(threads="2"), [("instances[0].threads", "write it without quotes")]),
    (instance(device="cpus"), [("instances[0].device", 'got "cpus"; did you mean "cpu"?')]),
    (
        instance(device="openvino:CPU"),
        [("instances[0].device", "or cuda:0 for the runtime onnxruntime")],
    ),
    (instance(runtime="openvino"), [("instances[0].device", "openvino:AUTO for the runtime openvino, got")]),
    (instance(options={"a.b": [1]}), [('instances[0].options["a.b"]', "true or false, got a list")]),
    (instance(options={"n": 2**64}), [("instances[0].options.n", "a number of more than 64 bits")]),
    (instance(options={"n": math.nan}), [("instances[0].options.n", "got nan")]),
    (instance(options={"s": "\ud800"}), [("instances[0].options.s", r"\ud800")]),
    (
        {"instances": [{"runtime": "loopback", "device": cpus} for cpus in ("cpu:0-1", "cpu", "cpu:1,0")]},
        [("instances[2]", "repeats instances[0]; raise its count")],
    ),
    ({"batching": {"max_batch_size": 5000}}, [("batching.max_batch_size", "from 1 to 4096, got 5000")]),
    (
        {"batching": {"max_batch_size": 8, "max_queue_size": 4}},
        [("batching.max_queue_size", "expected at least 8, the max_batch_size, got 4")],
    ),
    (
        {"batching": {"batchable": "atuo"}},
        [("batching.batchable", '"auto" or true or false, got "atuo"; did you')],
    ),
    ({"batching": {"batchable": "true"}}, [("batching.batchable", "write it without quotes")]),
    (
        padded(x={"axis": 1, "buckets": [16, 16]}),
        [("batching.pad.x.buckets", "expected numbers that increase, got [16, 16]")],
    ),
    (
        {"batching": {"pad": {"x": {"axis": 1, "buckets": []}}}},
        [("batching.pad.x.buckets", "not empty, got an empty list")],
    ),
    (
        {"batching": {"pad": {"x": {"axis": 0, "buckets": [1]}}}},
        [("batching.pad.x.axis", "axis 0 is the batch")],
    ),
    (
        tensors("inputs", (-1, 4)) | padded(x={"axis": 1, "buckets": [1]}, X1={"axis": 1, "buckets": [1]}),
        [
            ("batching.pad.x.axis", 'expected a dynamic dimension of "x": [-1, 4]'),
            ("batching.pad.X1", 'did you mean "x"?'),
        ],
    ),
    (tensors("outputs", (4,), (4,)), [("outputs[1].name", 'repeats outputs[0]: "x"')]),
    (
        tensors("outputs", (4,)) | {"batching": {"batchable": True}},
        [("outputs[0].shape", "expected -1 as the first")],
    ),
    (tensors("inputs", (-2,)), [("inputs[0].shape[0]", "from -1 to 2147483647, got -2")]),
    (
        {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": []}]},
        [("inputs[0].datatype", "expected one of")],
    ),
    ({"deadline": {"default_ms": 0}}, [("deadline.default_ms", "from 1 to 86400000")]),
    ({"retry": False}, [("retry", 'expected one of "auto", "never", got false')]),
    (
        {"priorities": {"levels": 3}},
        [("priorities.default", "expected 1 to 3, ")],
    ),
    ({"priorities": {"default": 1}}, [("priorities.default", "expected 0 because priorities.levels is 0")]),
    ({"required": "yes"}, [("required", 'expected true or false, got "yes"')]),
    ({"trace": {"ratio": 1.5}}, [("trace.ratio", "a number from 0 to 1, got 1.5")]),
    ({"load": {"mode": "on-demand"}}, [("load.mode", 'got "on-demand"; did you mean "on_demand"?')]),
    ({"load": {"idle_unload_s": 60}}, [("load.idle_unload_s", "is only for mode: on_demand")]),
    ({"load": {"mode": "on_demand"}, "required": True}, [("required", "expected false with load.mode")]),
]


@pytest.mark.parametrize(("data", "expected"), WRONG, ids=[str(wrong)[:60] for wrong, _ in WRONG])
def test_wrong_document_is_refused_with_path_and_reason(data, expected):
    problems = problems_of({"model": "m"} | data)

    assert [problem.path for problem in problems] == [path for path, _ in expected]
    for problem, (_, fragment) in zip(problems, expected, strict=True):
        assert fragment in problem.message


@pytest.mark.parametrize("data", [None, [], "model: m", 3, b"m"])
def test_what_is_not_a_mapping_is_refused(data):
    (problem,) = problems_of(data)

    assert problem.path == ""
    assert problem.message.startswith("expected a mapping, got ")


def test_all_problems_are_reported_at_once_each_on_its_line():
    data = {
        "labels": {"stable": "1", "canary": "9"},
        "traffic": {"split": {"canary": "5", "stabel": 1}},
        "instances": [{"runtime": "onnx"}, {"runtime": "openvino", "device": "cpu"}],
        "batching": {"max_batch_size": 8, "max_queue_size": 4},
        "retyr": "never",
    }
    with pytest.raises(DocumentInvalid) as caught:
        validate(data, versions=["1", "2"])

    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    assert {problem.path for problem in caught.value.problems} == {
        "retyr",
        "model",
        "labels.canary",
        "traffic.split.canary",
        "traffic.split.stabel",
        "instances[0].runtime",
        "instances[0].device",
        "instances[1].device",
        "batching.max_queue_size",
    }
