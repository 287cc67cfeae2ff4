from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.errors import DocumentInvalid
from gateway.config.triton import read_config_pbtxt
from gateway.config.validation import validate

DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size: 0
input [{ name: "data_0" data_type: TYPE_FP32 dims: [1, 3, 224, 224] }]
output [{ name: "fc6_1" data_type: TYPE_FP32 dims: [1, 1000, 1, 1] }]
"""
BATCHED = """
name: "ranker"
backend: "onnxruntime"
max_batch_size: 32
input { name: "text" data_type: TYPE_STRING dims: 1 }
input { name: "ids" data_type: TYPE_INT64 dims: [-1] }
output { name: "score" data_type: TYPE_BF16 dims: 1 }
default_model_filename: "ranker.onnx"
instance_group [{ kind: KIND_CPU count: 2 }, { kind: KIND_GPU gpus: [0, 1] }]
instance_group { kind: KIND_GPU gpus: 1 count: 2 }
version_policy { specific { versions: [1, 12] } }
dynamic_batching {
  max_queue_delay_microseconds: 500
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { default_timeout_microseconds: 1500 allow_timeout_override: true max_queue_size: 64 }
}
parameters { key: "intra_op_thread_count" value { string_value: "4" } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
optimization { graph { level: 1 } }
model_warmup { count: 3 }
model_warmup { }
"""


def paths(problems):
    return [problem.path for problem in problems]


def test_simple_onnx_model_is_not_batched_and_its_dims_are_whole():
    config = read_config_pbtxt(DENSENET)

    assert config.unsupported == ()
    assert config.model_filename is None
    assert config.data == {
        "model": "densenet_onnx",
        "batching": {"batchable": False, "max_batch_size": 1},
        "inputs": [{"name": "data_0", "datatype": "FP32", "shape": [1, 3, 224, 224]}],
        "outputs": [{"name": "fc6_1", "datatype": "FP32", "shape": [1, 1000, 1, 1]}],
    }
    assert validate(config.data).batching.batchable is False


def test_dynamic_batching_with_priorities_and_devices():
    config = read_config_pbtxt(BATCHED)
    tuned = {"threads": 4, "options": {"cpu_mem_arena": False, "graph_optimization_level": "extended"}}

    assert config.unsupported == ()
    assert config.model_filename == "ranker.onnx"
    assert config.data == {
        "model": "ranker",
        "version_policy": {"specific": ["1", "12"]},
        "batching": {
            "max_batch_size": 32,
            "max_queue_delay_us": 500,
            "max_queue_size": 64,
            "batchable": True,
        },
        "priorities": {"levels": 3, "default": 2},
        "deadline": {"default_ms": 2},
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [{"name": "score", "datatype": "BF16", "shape": [-1, 1]}],
        "instances": [
            {"runtime": "onnxruntime", "device": "cpu", "count": 2, **tuned},
            {"runtime": "onnxruntime", "device": "cuda:0", "count": 1, **tuned},
            {"runtime": "onnxruntime", "device": "cuda:1", "count": 3, **tuned},
        ],
        "warm_up": {"runs": 4},
    }
    assert validate(config.data, versions=["1", "12"]).priorities.effective(9) == 2


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", {}),
        ('backend: "onnxruntime"', {}),
        ("max_batch_size: 8", {"batching": {"max_batch_size": 8}}),
        ("max_batch_size: 8 dynamic_batching {}", {"batching": {"max_batch_size": 8, "batchable": True}}),
        ("max_batch_size: 2048", {"batching": {"max_batch_size": 2048, "max_queue_size": 2048}}),
        (
            "max_batch_size: 2048 dynamic_batching {}",
            {"batching": {"max_batch_size": 2048, "batchable": True, "max_queue_size": 2048}},
        ),
        ("version_policy { latest {} }", {"version_policy": {"latest": 1}}),
        ("version_policy { all {} }", {"version_policy": {"all": True}}),
        ("model_transaction_policy { decoupled: false }", {}),
        (
            'backend: "openvino"',
            {"instances": [{"runtime": "openvino", "device": "openvino:CPU", "count": 1}]},
        ),
        (
            """platform: "openvino" instance_group { kind: KIND_CPU count: 2 }
            parameters { key: "TARGET_DEVICE" value { string_value: "GPU.1" } }
            parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "2" } }
            parameters { key: "PERFORMANCE_HINT" value { string_value: "LATENCY" } }
            parameters { key: "RESHAPE_IO_LAYERS" value { string_value: "NO" } }
            parameters { key: "HINT_BF16" value { string_value: "yes" } }""",
            {
                "instances": [
                    {
                        "runtime": "openvino",
                        "device": "openvino:GPU.1",
                        "count": 2,
                        "threads": 2,
                        "options": {"precision": "bf16", "PERFORMANCE_HINT": "LATENCY"},
                    }
                ]
            },
        ),
        (
            'default_model_filename: "m.xml"',
            {"instances": [{"runtime": "openvino", "device": "openvino:CPU", "count": 1}]},
        ),
    ],
)
def test_what_is_honoured_is_in_the_document(text, data):
    config = read_config_pbtxt(text)

    assert config.unsupported == ()
    assert config.data == data
    assert validate(config.data, model="m")


def test_files_of_the_directory_decide_where_no_back_end_is_named():
    text = "instance_group { kind: KIND_CPU }"

    config = read_config_pbtxt(text, runtime="onnxruntime")

    assert config.data["instances"] == [{"runtime": "onnxruntime", "device": "cpu", "count": 1}]
    assert paths(read_config_pbtxt(text).refused) == ["backend"]


REFUSED = [
    ('backend: "python"', ["backend"]),
    ('platform: "tensorrt_plan" instance_group {}', ["platform"]),
    ('platform: "ensemble" ensemble_scheduling {}', ["platform", "ensemble_scheduling"]),
    ('backend: "openvino" platform: "onnxruntime_onnx"', ["platform"]),
    ("max_batch_size: -1", ["max_batch_size"]),
    ("sequence_batching {}", ["sequence_batching"]),
    (
        """sequence_batching { oldest { max_candidate_sequences: 4 } max_sequence_idle_microseconds: 5
        control_input { name: "END" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [0, 1] } } }""",
        ["sequence_batching"],
    ),
    ("model_transaction_policy { decoupled: true }", ["model_transaction_policy.decoupled"]),
    (
        """input { name: "a" data_type: TYPE_BOOL dims: 1 reshape { shape: [] } optional: true }
        input { name: "b" data_type: TYPE_BOOL dims: 1 reshape { shape: 1 } allow_ragged_batch: true }""",
        ["input[0].reshape", "input[0].optional", "input[1].reshape", "input[1].allow_ragged_batch"],
    ),
    ('input { name: "a" dims: 1 }', ["input[0].data_type"]),
    ('batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" }', ["batch_input[0]"]),
    (
        'backend: "openvino" instance_group [{ kind: KIND_CPU }, { kind: KIND_GPU }, { gpus: 1 }]',
        ["instance_group[1].kind", "instance_group[2].gpus"],
    ),
    ('backend: "onnxruntime" instance_group { kind: KIND_CPU gpus: 0 }', ["instance_group[0].gpus"]),
    (
        """backend: "openvino" parameters { key: "TARGET_DEVICE" value { string_value: "HETERO:GPU,CPU" } }
        parameters { key: "RESHAPE_IO_LAYERS" value { string_value: "YES" } }
        parameters { key: "CPU_EXTENSION_PATH" value { string_value: "x.so" } }
        parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "all" } }""",
        [
            "parameters.CPU_EXTENSION_PATH",
            "parameters.INFERENCE_NUM_THREADS",
            "parameters.RESHAPE_IO_LAYERS",
            "parameters.TARGET_DEVICE",
        ],
    ),
]


@pytest.mark.parametrize(("text", "places"), REFUSED)
def test_what_would_change_answers_is_refused(text, places):
    config = read_config_pbtxt(text)

    assert paths(config.refused) == places
    assert config.ignored == ()


IGNORED = [
    (
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [4, 8] preserve_ordering: true }",
        ["dynamic_batching.preferred_batch_size", "dynamic_batching.preserve_ordering"],
    ),
    (
        "dynamic_batching { priority_queue_policy { key: 2 value { max_queue_size: 5 } } }",
        ["dynamic_batching.priority_queue_policy.2.max_queue_size"],
    ),
    (
        "max_batch_size: 8 dynamic_batching { default_queue_policy { max_queue_size: 2 } }",
        ["dynamic_batching.default_queue_policy.max_queue_size"],
    ),
    ("response_cache { enable: true }", ["response_cache.enable"]),
    (
        'backend: "openvino" parameters { key: "ENABLE_BATCH_PADDING" value { string_value: "YES" } }',
        ["parameters.ENABLE_BATCH_PADDING"],
    ),
    (
        'backend: "onnxruntime" instance_group [{ count: 2 }, { kind: KIND_GPU }]',
        ["instance_group[0].kind", "instance_group[1].kind"],
    ),
    (
        'backend: "onnxruntime" parameters { key: "arena" value { string_value: "1" } }',
        ["parameters.arena"],
    ),
    (
        'backend: "onnxruntime" parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
        ["instance_group"],
    ),
    (
        "optimization { graph { level: 1 } cuda { graphs: true } }",
        ["optimization.graph.level", "optimization.cuda.graphs"],
    ),
]


@pytest.mark.parametrize(("text", "places"), IGNORED)
def test_what_changes_only_speed_or_order_is_ignored_with_a_warning(text, places):
    config = read_config_pbtxt(text)

    assert config.refused == ()
    assert paths(config.ignored) == places


def test_late_requests_that_triton_would_only_delay_get_no_deadline():
    policy = "timeout_action: DELAY default_timeout_microseconds: 5000"

    config = read_config_pbtxt(f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}")

    assert "deadline" not in config.data
    assert paths(config.ignored) == ["dynamic_batching.default_queue_policy.timeout_action"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "a"\nmax_batchsize: 3', "line 2, column 1: Message type"),
        ('name: "a', "line 1, column 7: "),
        ("max_batch_size: 99999999999", "line 1, column 17: "),
        ("input { data_type: TYPE_FP31 }", "line 1, column 20: "),
        ('name: "\ud800"', "line 1, column 7: 'name: \"\\ud800\"'"),
    ],
)
def test_text_that_is_no_configuration_is_refused_with_its_place(text, message):
    with pytest.raises(DocumentInvalid) as caught:
        read_config_pbtxt(text)
    assert str(caught.value).startswith(message)


TOKENS = st.sampled_from(
    [
        *'{}[]:,"#\n',
        "name",
        "input",
        "dims",
        "parameters",
        "key",
        "value",
        "max_batch_size",
        "1",
        "-1",
        '"a"',
        '"\\xff"',
    ]
)


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(TOKENS | st.text(max_size=3), max_size=20))
@pytest.mark.slow
def test_arbitrary_text_is_a_configuration_or_invalid(tokens):
    try:
        data = read_config_pbtxt(" ".join(tokens)).data
    except DocumentInvalid as error:
        outcome = len(error.problems)
    else:
        outcome = len(data) + 1
    assert outcome
