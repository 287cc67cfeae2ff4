"""Every runtime through real sessions: what goes in comes out, and errors say what is there."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from wire.datatypes import DATATYPES
from wire.frames import Signature, TensorSpec
from workers.probe import Collected, run
from workers.runtimes.runtime import LoadFailed, RunFailed, open_runtime, runtimes_here
from workers.tensors import NUMPY_TYPES, join_bytes, read

NUMBERS = sorted(DATATYPES - {"BYTES"})
ENGINES = ["onnxruntime", "openvino"]


def values(datatype, shape=(3, 4)):
    """Read-only values that use the datatype's range."""
    rng = np.random.default_rng(1)
    dtype = NUMPY_TYPES[datatype]
    if datatype == "BOOL":
        array = rng.integers(0, 2, shape).astype(dtype)
    elif datatype == "BF16":
        array = (rng.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(dtype)
    elif dtype.kind == "f":
        array = rng.standard_normal(shape).astype(dtype)
    else:
        info = np.iinfo(dtype)
        array = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return as_received(datatype, array)


def as_received(datatype, array):
    """An array as the executor makes it: a read-only view of bytes."""
    raw = join_bytes(array.ravel().tolist()) if datatype == "BYTES" else array.tobytes()
    return read(datatype, array.shape, memoryview(raw))


@pytest.mark.parametrize("runtime", ENGINES)
@pytest.mark.parametrize("datatype", NUMBERS)
def test_identity_of_every_number(models, load, runtime, datatype):
    session = load(runtime, models.identity(datatype))
    for spec, name in ((session.signature.inputs[0], "x"), (session.signature.outputs[0], "y")):
        assert (spec.name, spec.datatype, spec.shape) == (name, datatype, (-1, 4))
    for rows in (3, 1, 7):
        given = values("INT32" if (runtime, datatype) == ("openvino", "INT64") else datatype, (rows, 4))
        given = given.astype(NUMPY_TYPES[datatype])
        answer = run(session, {"x": given})["y"]
        assert answer.dtype == NUMPY_TYPES[datatype]
        np.testing.assert_array_equal(answer, given)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63 - 1])
def test_openvino_does_not_cut_numbers_of_64_bits_silently(models, load, number):
    session = load("openvino", models.identity("INT64"))
    with pytest.raises(RunFailed, match="x holds a number of over 32 bits"):
        run(session, {"x": np.full((1, 4), number, np.int64)})


@pytest.mark.parametrize("runtime", ENGINES)
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "FP16", "BOOL", "BF16"])
def test_tensors_without_elements(models, load, runtime, datatype):
    session = load(runtime, models.identity(datatype))
    answer = run(session, {"x": values(datatype, (0, 4))})["y"]
    assert (answer.shape, answer.dtype) == ((0, 4), NUMPY_TYPES[datatype])


@pytest.mark.parametrize("runtime", ENGINES)
def test_addition_is_computed_in_full_precision(models, load, runtime):
    both = {"a": ("FP32", ("n", 64)), "b": ("FP32", ("n", 64))}
    session = load(runtime, models.node("Add", both, {"c": ("FP32", ("n", 64))}))
    a, b = values("FP32", (5, 64)), values("FP32", (5, 64)) * np.float32(1e-3)
    np.testing.assert_array_equal(run(session, {"a": a, "b": b})["c"], a + b)


def test_bf16_is_computed_not_only_passed_through(models, load):
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=1),
        helper.make_node("Add", ["f", "f"], ["g"]),
        helper.make_node("Cast", ["g"], ["y"], to=16),
    ]
    path = models.write(nodes, {"x": ("BF16", ("n", 4))}, {"y": ("BF16", ("n", 4)), "g": ("FP32", ("n", 4))})
    given = values("BF16")
    answers = run(load("onnxruntime", path), {"x": given})
    floats = (given.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(answers["g"], floats * 2)
    np.testing.assert_array_equal((answers["y"].astype(np.uint32) << 16).view(np.float32), floats * 2)


def test_texts_through_onnxruntime(models, load):
    session = load("onnxruntime", models.identity("BYTES"))
    given = np.array([[b"", b"a\0", "é".encode(), b"x" * 100_000]], object)
    answer = run(session, {"x": as_received("BYTES", given)})["y"]
    assert join_bytes(answer.ravel().tolist()) == join_bytes(given.ravel().tolist())


def test_a_text_that_is_not_utf8_fails_the_run_and_names_the_input(models, load):
    session = load("onnxruntime", models.identity("BYTES", (1,)))
    with pytest.raises(RunFailed, match="an element of x is not UTF-8"):
        run(session, {"x": as_received("BYTES", np.array([b"\xff"], object))})


def test_a_scalar_text(models, load):
    session = load("onnxruntime", models.identity("BYTES", ()))
    answer = run(session, {"x": as_received("BYTES", np.array(b"abc", object))})["y"]
    assert (answer.shape, join_bytes(answer.ravel().tolist())) == ((), join_bytes([b"abc"]))


def test_openvino_refuses_texts_in_outputs_which_it_corrupts(models, load):
    with pytest.raises(LoadFailed, match="output y is of type string"):
        load("openvino", models.identity("BYTES"))


@pytest.fixture
def byte_counter(tmp_path):
    """An OpenVINO model that answers with the UTF-8 bytes of its texts."""
    import openvino as ov
    from openvino import opset15 as ops

    texts = ops.parameter(ov.PartialShape([-1]), ov.Type.string, name="x")
    texts.output(0).get_tensor().set_names({"x"})
    parts = ops.string_tensor_unpack(texts)
    parts.output(2).get_tensor().set_names({"y"})
    path = tmp_path / "texts.xml"
    ov.save_model(ov.Model([parts.output(2)], [texts], "texts"), path)
    return str(path)


def test_texts_into_openvino(byte_counter, load):
    session = load("openvino", byte_counter)
    given = as_received("BYTES", np.array([b"ab", b"", b"\xff\xfe", b"c" * 50], object))
    assert bytes(run(session, {"x": given})["y"]) == b"ab\xff\xfe" + b"c" * 50


def test_openvino_does_not_drop_a_trailing_nul_silently(byte_counter, load):
    with pytest.raises(RunFailed, match="an element of x ends in a NUL byte"):
        run(load("openvino", byte_counter), {"x": as_received("BYTES", np.array([b"a\0"], object))})


@pytest.mark.parametrize("runtime", ENGINES)
def test_only_the_wanted_outputs_are_written(models, load, runtime):
    session = load(runtime, models.two_outputs())
    given = {"a": values("FP32", (2, 2)), "b": values("FP32", (2, 2))}
    for wanted, expected in [((), {"s", "d"}), (("d",), {"d"}), (("d", "s"), {"s", "d"})]:
        outputs = Collected()
        session.run(given, wanted, outputs)
        assert set(outputs.arrays) == expected
        np.testing.assert_array_equal(outputs.arrays["d"], given["a"] - given["b"])


@pytest.mark.parametrize("runtime", ENGINES)
def test_shapes_may_change_from_run_to_run(models, load, runtime):
    session = load(runtime, models.identity("FP32", ("n", "k", 2)))
    assert session.signature.inputs[0].shape == (-1, -1, 2)
    for shape in [(1, 1, 2), (4, 9, 2), (2, 3, 2)]:
        assert run(session, {"x": values("FP32", shape)})["y"].shape == shape


@pytest.mark.parametrize("runtime", ENGINES)
def test_scalars(models, load, runtime):
    session = load(runtime, models.identity("FP32", ()))
    answer = run(session, {"x": values("FP32", ())})["y"]
    assert (answer.shape, answer.dtype) == ((), np.float32)


@pytest.mark.parametrize("runtime", ENGINES)
def test_an_output_whose_shape_depends_on_the_data(models, load, runtime):
    session = load(runtime, models.node("NonZero", {"x": ("FP32", ("n", 3))}, {"y": ("INT64", (2, "k"))}))
    for ones in (0, 1, 5):
        given = np.zeros((2, 3), np.float32)
        given.ravel()[:ones] = 1
        assert run(session, {"x": as_received("FP32", given)})["y"].shape == (2, ones)


def test_names_of_dynamic_dimensions(models, load):
    session = load("onnxruntime", models.identity("FP32", ("batch", "width", 3)))
    assert session.signature.inputs[0].symbols == ("batch", "width", "")


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("runtime", ENGINES)
def test_a_failing_run_says_why_and_the_session_goes_on(models, load, runtime, width):
    pair = {"a": ("FP32", ("n", "k")), "b": ("FP32", ("k", "m"))}
    session = load(runtime, models.node("MatMul", pair, {"c": ("FP32", ("n", "m"))}), width=width)
    good = {"a": values("FP32", (2, 3)), "b": values("FP32", (3, 2))}
    for _ in range(2):
        np.testing.assert_allclose(run(session, good)["c"], good["a"] @ good["b"], rtol=1e-5)
        with pytest.raises(RunFailed, match=r"(?s).{20,}"):
            run(session, {"a": values("FP32", (2, 3)), "b": values("FP32", (4, 2))})


@pytest.mark.parametrize("runtime", ENGINES)
def test_a_missing_file_may_come_later(tmp_path, load, runtime):
    with pytest.raises(LoadFailed, match=r"absent\.onnx is not a file") as caught:
        load(runtime, str(tmp_path / "absent.onnx"))
    assert caught.value.retryable


@pytest.mark.parametrize("runtime", ENGINES)
@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x08\x08" + b"\xff" * 200], ids=["empty", "text", "noise"]
)
def test_a_corrupt_file_fails_for_good(tmp_path, load, runtime, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadFailed) as caught:
        load(runtime, str(path))
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("runtime", "options", "message"),
    [
        (
            "onnxruntime",
            {"threads": 2},
            "unknown onnxruntime options threads; there are cpu_mem_arena, gpu_mem",
        ),
        (
            "onnxruntime",
            {"graph_optimization_level": "max"},
            "'max' is none of disable, basic, extended, all",
        ),
        ("onnxruntime", {"provider": "tensorrt"}, "provider is for a CUDA device, not for cpu"),
        ("onnxruntime", {"gpu_mem_limit_bytes": 1}, "gpu_mem_limit_bytes is for a CUDA device"),
        ("openvino", {"threads": 2}, "unknown openvino options threads; there are precision and OpenVINO's"),
        ("openvino", {"precision": "int4"}, "precision 'int4' is none of f32, bf16, f16"),
        ("openvino", {"NO_SUCH_PROPERTY": 1}, "NO_SUCH_PROPERTY"),
        ("loopback", {"dealy_us": 1}, "unknown loopback options dealy_us; there are crash_on, delay_us"),
    ],
)
def test_unknown_options_name_what_exists(models, load, runtime, options, message):
    with pytest.raises(LoadFailed) as caught:
        load(runtime, models.identity(), options=options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("runtime", "device", "options", "message"),
    [
        ("openvino", "openvino:GPU", {}, "OpenVINO has no device GPU here; it has CPU"),
        ("openvino", "openvino:NPU", {}, "OpenVINO has no device NPU here; it has CPU"),
        ("openvino", "cpu", {}, "openvino runs on openvino:CPU, openvino:GPU and so on, not on cpu"),
        ("onnxruntime", "cuda:0", {"provider": "bogus"}, "provider 'bogus' is none of cuda, tensorrt"),
        ("onnxruntime", "openvino:CPU", {}, "onnxruntime runs on cpu and cuda:N, not on openvino:CPU"),
    ],
)
def test_there_is_no_silent_fall_back(models, load, runtime, device, options, message):
    with pytest.raises(LoadFailed) as caught:
        load(runtime, models.identity(), device=device, options=options)
    assert message in str(caught.value)


@pytest.mark.parametrize("provider", ["CUDA", "Tensorrt"])
def test_a_provider_that_is_not_there_is_an_error_that_names_what_is(models, load, provider):
    import onnxruntime as ort

    if f"{provider}ExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has it")
    with pytest.raises(
        LoadFailed, match=f"has no {provider}ExecutionProvider; it has .*CPUExecutionProvider"
    ):
        load("onnxruntime", models.identity(), device="cuda:0", options={"provider": provider.lower()})


def test_openvino_auto_needs_no_device_of_that_name(models, load):
    session = load("openvino", models.identity(), device="openvino:AUTO")
    assert run(session, {"x": values("FP32")})["y"].shape == (3, 4)


def test_onnxruntime_options_are_taken(models, load):
    session = load(
        "onnxruntime",
        models.identity(),
        options={"graph_optimization_level": "disable", "cpu_mem_arena": False},
    )
    assert run(session, {"x": values("FP32")})["y"].shape == (3, 4)


def test_an_unknown_runtime_names_those_there_are():
    with pytest.raises(LoadFailed, match="unknown runtime 'tf'; there are loopback, onnxruntime, openvino"):
        open_runtime("tf")


def test_runtimes_are_found_without_being_imported():
    assert runtimes_here() == {"onnxruntime": "installed", "openvino": "installed", "loopback": "installed"}


# -- loopback ---

TEXTS = Signature((TensorSpec("t", "BYTES", (-1, 2)),), (TensorSpec("u", "BYTES", (-1, 2)),))


def test_loopback_answers_with_its_inputs(load):
    given = values("FP32")
    np.testing.assert_array_equal(run(load("loopback"), {"INPUT0": given})["OUTPUT0"], given)


def test_loopback_expands_the_last_axis(load):
    given = values("FP32", (2, 3))
    answer = run(load("loopback", options={"expand": 4}), {"INPUT0": given})["OUTPUT0"]
    np.testing.assert_array_equal(answer, np.tile(given, 4))


def test_loopback_expands_texts(load):
    given = np.array([[b"a", b"b"]], object)
    answer = run(load("loopback", options={"expand": 2}, signature=TEXTS), {"t": given})["u"]
    assert answer.tolist() == [[b"a", b"b", b"a", b"b"]]


def test_loopback_mixes_rows_when_told_to(load):
    session = load("loopback", options={"mixes_rows": True})
    one = run(session, {"INPUT0": np.ones((1, 2), np.float32)})["OUTPUT0"]
    two = run(session, {"INPUT0": np.ones((2, 2), np.float32)})["OUTPUT0"]
    assert one[0, 0] != two[0, 0]


def test_loopback_fails_on_the_declared_number(load):
    session = load("loopback", options={"fail_on": 13})
    with pytest.raises(RunFailed, match="declared to fail on 13"):
        run(session, {"INPUT0": np.array([[1, 13]], np.float32)})
    assert run(session, {"INPUT0": np.array([[1, 2]], np.float32)})


def test_loopback_fails_to_load_when_told_to(load):
    with pytest.raises(LoadFailed, match="declared to fail at load"):
        load("loopback", options={"load": "fail"})


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (Signature(TEXTS.inputs, ()), "as many outputs as inputs"),
        (Signature(TEXTS.inputs, (TensorSpec("u", "FP32", (-1, 2)),)), "cannot turn BYTES t into FP32"),
    ],
)
def test_loopback_refuses_signatures_it_cannot_fill(load, signature, message):
    with pytest.raises(LoadFailed, match=message):
        load("loopback", signature=signature)


def test_onnxruntime_is_told_to_send_no_telemetry(monkeypatch):
    asked = []
    monkeypatch.setattr("onnxruntime.disable_telemetry_events", lambda: asked.append(True))
    open_runtime("onnxruntime")
    assert asked == [True]
