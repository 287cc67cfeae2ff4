"""What every front end answers on the wire, whatever it is made of.

Request rules: Open Inference Protocol and Triton's extensions to it. Codes: the map from causes to statuses.
"""

from __future__ import annotations

import queue
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as package_version
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from front_ends import MESSAGE_LIMIT_MIB, SERVE
from gateway_process import GatewayProcess
from google.protobuf import descriptor_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from sample_requests import INVALID, ONE, PAIR, TYPED, X, echo, elements_of, typed, with_raw_again
from served_models import (
    AFFINE_LABELS,
    AFFINE_VERSIONS,
    DATATYPES,
    EXPANDS,
    FAILS_ON,
    MAX_ROWS,
    NUMPY_TYPES,
    QUEUE_SIZE,
    SLOW_US,
    UNBATCHED,
    write_loopback,
)
from wire_calls import CALL_S, SERVICE, Input, Wire, encoded, numbers, request, set_parameter, trailing, words

from protos import inference_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

NOT_OFFERED = (
    f"{SERVICE}RepositoryModelLoad",  # by a directory
    f"{SERVICE}RepositoryModelUnload",
    f"{SERVICE}SystemSharedMemoryStatus",
    f"{SERVICE}SystemSharedMemoryRegister",
    f"{SERVICE}CudaSharedMemoryStatus",
    f"{SERVICE}TraceSetting",
    f"{SERVICE}LogSettings",
    f"{SERVICE}Nothing",
    "/some.Other/Method",
)


class TestFrontendContract:
    """Every test runs against every front end that `conftest` lists."""

    # -- the server and its models ---

    def test_server_is_live_and_ready(self, wire):
        assert wire.ask("ServerLive", pb.ServerLiveRequest()).live
        assert wire.ask("ServerReady", pb.ServerReadyRequest()).ready

    def test_server_metadata_lists_only_extensions_that_work(self, wire):
        metadata = wire.ask("ServerMetadata", pb.ServerMetadataRequest())
        assert (metadata.name, metadata.version) == ("crossgate", package_version("crossgate"))
        assert {"model_configuration", "statistics", "binary_tensor_data"} <= set(metadata.extensions)
        absent = {
            "sequence",
            "classification",
            "system_shared_memory",
            "cuda_shared_memory",
            "trace",
            "logging",
        }
        assert not absent & set(metadata.extensions)

    @pytest.mark.parametrize("version", ["", *AFFINE_VERSIONS, *AFFINE_LABELS])
    def test_model_is_ready_by_version_and_label(self, wire, version):
        assert wire.ask("ModelReady", pb.ModelReadyRequest(name="affine", version=version)).ready

    @pytest.mark.parametrize(
        "version",
        [
            "",
            "1",
            "next",
        ],
    )
    def test_model_that_cannot_load_is_known_and_not_ready(self, wire, version):
        assert not wire.ask("ModelReady", pb.ModelReadyRequest(name="broken", version=version)).ready

    @pytest.mark.parametrize(
        ("method", "message"),
        [
            ("ModelReady", pb.ModelReadyRequest),
            ("ModelMetadata", pb.ModelMetadataRequest),
            ("ModelConfig", pb.ModelConfigRequest),
            ("ModelStatistics", pb.ModelStatisticsRequest),
        ],
    )
    @pytest.mark.parametrize(("name", "version"), [("affine", "3"), ("affine", "beta"), ("nothing", "")])
    def test_questions_about_unknown_models_are_not_found(self, wire, method, message, name, version):
        with pytest.raises(grpc.RpcError) as caught:
            wire.ask(method, message(name=name, version=version))
        assert caught.value.code() == StatusCode.NOT_FOUND
        assert "affine" in caught.value.details()
        assert (version or name) in caught.value.details()

    def test_model_metadata_names_versions_platform_and_tensors(self, wire):
        metadata = wire.ask("ModelMetadata", pb.ModelMetadataRequest(name="affine"))
        assert (metadata.name, metadata.platform) == ("affine", "onnxruntime_onnx")
        assert tuple(metadata.versions) == AFFINE_VERSIONS
        (x,), (y,) = metadata.inputs, metadata.outputs
        assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 4])
        assert (y.name, y.datatype, list(y.shape)) == ("y", "FP32", [-1, 4])

    def test_model_config_of_a_batched_model_has_no_batch_dimension(self, wire):
        config = wire.ask("ModelConfig", pb.ModelConfigRequest(name="rows")).config
        assert (config.name, config.max_batch_size) == ("rows", MAX_ROWS)
        assert [(t.name, list(t.dims)) for t in config.input] == [("a", [2]), ("b", [1])]
        assert [(t.name, list(t.dims)) for t in config.output] == [("a_out", [2]), ("b_out", [1])]
        assert config.HasField("dynamic_batching")
        assert [group.count for group in config.instance_group] == [1]
        assert not config.model_transaction_policy.decoupled

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_model_config_of_an_unbatched_model_has_all_dimensions(self, wire, datatype):
        config = wire.ask("ModelConfig", pb.ModelConfigRequest(name=f"echo_{datatype.lower()}")).config
        assert config.max_batch_size == 0
        assert not config.HasField("dynamic_batching")
        (x,) = config.input
        assert list(x.dims) == [-1, -1]
        type_ = x.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[x.data_type].name
        assert type_ == f"TYPE_{ {'BYTES': 'STRING'}.get(datatype, datatype) }"

    def test_repository_index_lists_every_version_with_its_state(self, wire):
        index = wire.ask("RepositoryIndex", pb.RepositoryIndexRequest())
        states = {(model.name, model.version): model.state for model in index.models}
        assert {version for name, version in states if name == "affine"} == set(AFFINE_VERSIONS)
        assert states["affine", "1"] == "READY"
        assert states["broken", "1"] in ("UNAVAILABLE", "LOADING")  # it is tried again from time to time

    def test_repository_index_of_ready_models_leaves_out_the_others(self, wire):
        index = wire.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
        assert {model.state for model in index.models} == {"READY"}
        assert "broken" not in {model.name for model in index.models}

    def test_unknown_repository_is_not_found(self, wire):
        with pytest.raises(grpc.RpcError) as caught:
            wire.ask("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="other"))
        assert caught.value.code() == StatusCode.NOT_FOUND

    # -- statistics ---

    @pytest.mark.slow
    def test_statistics_add_up_as_in_triton(self, wire):
        before = wire.statistics("counted")
        assert (before.inference_count, before.execution_count, len(before.batch_stats)) == (0, 0, 0)
        full = [wire.start(request("counted", numbers("x", [[1.0]]))) for _ in range(MAX_ROWS)]
        for call in full:
            call.result()
        wire.infer(request("counted", numbers("x", [[1.0]] * MAX_ROWS)))
        failed = wire.refused(request("counted", numbers("x", [[FAILS_ON]] * MAX_ROWS), version="1"))
        assert failed.code() == StatusCode.INTERNAL
        after = wire.statistics("counted")
        stats = after.inference_stats
        requests = MAX_ROWS + 1
        assert after.inference_count == 2 * MAX_ROWS  # rows
        assert after.execution_count == 2  # the failed one does not count
        assert after.last_inference > 1_600_000_000_000  # milliseconds
        counts = [stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output]
        assert [duration.count for duration in counts] == [requests] * 5
        assert (stats.fail.count, stats.fail.ns > 0) == (1, True)
        assert stats.success.ns >= stats.queue.ns + stats.compute_infer.ns
        (row,) = after.batch_stats
        assert (row.batch_size, row.compute_infer.count, row.compute_input.count) == (MAX_ROWS, 2, 2)
        # a batch's time counts once for each of its requests
        assert 0 < row.compute_infer.ns < stats.compute_infer.ns <= row.compute_infer.ns * MAX_ROWS

    def test_statistics_without_a_name_are_of_every_model(self, wire):
        wire.infer(request("pair", *PAIR))
        answer = wire.ask("ModelStatistics", pb.ModelStatisticsRequest())
        found = {(stats.name, stats.version): stats for stats in answer.model_stats}
        assert {("affine", "1"), ("affine", "2"), ("pair", "1")} <= set(found)
        assert found["pair", "1"].inference_count > 0
        assert all(name and version for name, version in found)

    def test_statistics_by_label_are_those_of_its_version(self, wire):
        answer = wire.ask("ModelStatistics", pb.ModelStatisticsRequest(name="affine", version="stable"))
        assert [(stats.name, stats.version) for stats in answer.model_stats] == [("affine", "1")]

    def test_rejected_request_for_a_named_version_counts_as_failed(self, wire):
        before = wire.statistics("failing").inference_stats.fail.count
        wire.refused(request("failing", numbers("x", [1.0]), version="1"))
        assert wire.statistics("failing").inference_stats.fail.count == before + 1

    # -- inference ---

    @pytest.mark.parametrize("id", ["", "7", "日本", "x" * 1000])
    def test_id_is_echoed(self, wire, id):
        assert wire.infer(request("affine", X, id=id)).response.id == id

    @pytest.mark.parametrize(
        ("asked", "answered"), [("", "2"), ("1", "1"), ("2", "2"), *AFFINE_LABELS.items()]
    )
    def test_response_and_trailing_metadata_name_the_version_that_served(self, wire, asked, answered):
        answer = wire.infer(request("affine", X, version=asked))
        assert (answer.response.model_name, answer.response.model_version) == ("affine", answered)
        assert answer.trailing["crossgate-version"] == answered
        assert int(answer.trailing["crossgate-revision"]) > 0
        np.testing.assert_array_equal(answer.array("y"), np.array([[1, 2, 3, 4]]) * float(answered) + 1)

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_raw_contents_of_every_datatype_come_back(self, wire, datatype):
        raw = elements_of(datatype)
        answer = wire.infer(echo(datatype, Input("x", datatype, (2, 3), raw)))
        tensor, answered = answer.raw("x_out")
        assert (tensor.datatype, list(tensor.shape), answered) == (datatype, [2, 3], raw)
        assert not tensor.HasField("contents")

    @pytest.mark.parametrize("datatype", TYPED)
    def test_typed_contents_are_the_same_as_raw(self, wire, datatype):
        field, values = TYPED[datatype]
        tensor, answered = wire.infer(typed(datatype, field, values)).raw("x_out")
        expected = (
            encoded(values) if datatype == "BYTES" else np.array(values, NUMPY_TYPES[datatype]).tobytes()
        )
        assert (tensor.datatype, list(tensor.shape), answered) == (datatype, [1, 3], expected)

    @pytest.mark.parametrize("datatype", DATATYPES)
    @pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
    def test_tensor_without_elements_is_valid(self, wire, datatype, shape):
        tensor, answered = wire.infer(echo(datatype, Input("x", datatype, shape, b""))).raw("x_out")
        assert (list(tensor.shape), answered) == (list(shape), b"")

    def test_typed_tensor_without_elements_needs_no_contents(self, wire):
        _, answered = wire.infer(echo("FP32", Input("x", "FP32", (2, 0), None))).raw("x_out")
        assert answered == b""

    def test_inputs_may_come_in_any_order(self, wire):
        answer = wire.infer(request("pair", *reversed(PAIR)))
        assert answer.raw("numbers_out")[1] == PAIR[0].raw
        assert answer.raw("words_out")[1] == PAIR[1].raw

    def test_large_tensors_of_several_inputs_come_back(self, wire):
        many = [bytes([i % 256]) * (i % 97) for i in range(4000)]
        pair = (PAIR[0], words("words", *many))
        assert wire.infer(request("pair", *pair)).raw("words_out")[1] == pair[1].raw
        assert wire.infer(request("pair", *reversed(pair))).raw("words_out")[1] == pair[1].raw

    def test_without_requested_outputs_all_are_answered(self, wire):
        answer = wire.infer(request("pair", *PAIR))
        assert [tensor.name for tensor in answer.response.outputs] == ["numbers_out", "words_out"]

    @pytest.mark.parametrize("name", ["numbers_out", "words_out"])
    def test_only_requested_outputs_are_answered(self, wire, name):
        answer = wire.infer(request("pair", *PAIR, outputs=[name]))
        assert [tensor.name for tensor in answer.response.outputs] == [name]
        assert len(answer.response.raw_output_contents) == 1

    @pytest.mark.parametrize(("model", "inputs", "name"), [("pair", PAIR, "words_out"), ("affine", [X], "y")])
    def test_output_requested_twice_is_answered_once(self, wire, model, inputs, name):
        answer = wire.infer(request(model, *inputs, outputs=[name, name]))
        assert [tensor.name for tensor in answer.response.outputs] == [name]

    @pytest.mark.parametrize("rows", range(1, MAX_ROWS + 1))
    def test_request_may_bring_as_many_rows_as_a_batch_takes(self, wire, rows):
        values = np.arange(rows * 2, dtype="<i4").reshape(rows, 2)
        answer = wire.infer(
            request("rows", numbers("a", values, "INT32"), numbers("b", values[:, :1], "INT32"))
        )
        np.testing.assert_array_equal(answer.array("a_out"), values)

    def test_unknown_parameters_are_ignored(self, wire):
        parameters = {
            "a": True,
            "b": 2**62,
            "c": "text",
            "d": 0.5,
            "triton_enable_empty_final_response": True,
        }
        message = request("affine", X, parameters=parameters)
        message.parameters["e"].uint64_param = 2**64 - 1
        message.parameters["none"].SetInParent()
        set_parameter(message.inputs[0].parameters["f"], "text")
        assert wire.infer(message).array("y").shape == (1, 4)

    @pytest.mark.parametrize(
        "parameters", [{"sequence_id": 0}, {"priority": 1}, {"binary_data_output": True}]
    )
    def test_reserved_parameters_that_ask_for_nothing_are_accepted(self, wire, parameters):
        assert wire.infer(request("affine", X, parameters=parameters)).array("y").shape == (1, 4)

    @pytest.mark.parametrize(
        "metadata",
        [
            [("x-user", "a"), ("x-user", "b")],
            [("x-empty", "")],
            [("x-data-bin", b"\0\xff")],
            [("a.b_c-d", " spaces "), ("x-punctuation", "~!@#$%^&*(){}[]|;:'\"<>?/")],
            [("traceparent", "00-not-a-trace"), ("tracestate", "=,=")],
            [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
            [("authorization", "Bearer nobody"), ("crossgate-version", "9"), ("triton_grpc_error", "true")],
            [("x-long", "v" * 4000)],
        ],
        ids=lambda metadata: metadata[0][0],
    )
    def test_metadata_of_any_kind_is_accepted(self, wire, metadata):
        assert wire.infer(request("affine", X), metadata=metadata).response.model_version == "2"

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_compressed_requests_are_read(self, wire, compression):
        tensor = words("words", *[b"same"] * 5000)
        answer = wire.infer(request("pair", PAIR[0], tensor), compression=compression)
        assert answer.raw("words_out")[1] == tensor.raw

    # -- refusals ---

    @pytest.mark.parametrize("case", INVALID)
    def test_invalid_request_is_refused_by_name(self, wire, case):
        message, said = INVALID[case]
        error = wire.refused(message)
        assert error.code() == StatusCode.INVALID_ARGUMENT, error.details()
        assert [text for text in said if text not in error.details()] == [], error.details()

    @pytest.mark.parametrize(
        ("model", "version", "said"),
        [
            ("nothing", "", ("'nothing'", "affine")),
            ("", "", ("affine",)),
            ("affine", "3", ("affine", "'3'", "1", "2", "canary", "stable")),
            ("affine", "abc", ("affine", "'abc'", "1", "2", "canary", "stable")),
            ("affine", "01", ("affine", "'01'")),
            ("affine", "-1", ("affine", "'-1'")),
        ],
    )
    def test_unknown_model_or_version_is_not_found(self, wire, model, version, said):
        error = wire.refused(request(model, X, version=version))
        assert error.code() == StatusCode.NOT_FOUND
        assert [text for text in said if text not in error.details()] == [], error.details()

    @pytest.mark.parametrize("version", ["", "1"])
    def test_model_that_is_not_ready_is_unavailable(self, wire, version):
        error = wire.refused(request("broken", ONE, version=version))
        assert error.code() == StatusCode.UNAVAILABLE
        assert "broken" in error.details()

    def test_failure_of_the_model_is_internal_with_its_message(self, wire):
        error = wire.refused(request("failing", numbers("x", [[FAILS_ON]])))
        assert error.code() == StatusCode.INTERNAL
        assert f"declared to fail on {FAILS_ON}" in error.details()
        assert trailing(error)["crossgate-version"] == "1"
        assert int(trailing(error)["crossgate-revision"]) > 0
        assert wire.infer(request("failing", numbers("x", [[1.0]]))).array("x_out") == [[1.0]]

    @pytest.mark.parametrize(("inputs", "version"), [([ONE], "stable"), ([X], "99")])
    def test_refusal_claims_no_version_that_did_not_serve(self, wire, inputs, version):
        error = wire.refused(request("affine", *inputs, version=version))
        assert trailing(error).get("crossgate-version", "1") == "1"

    @pytest.mark.parametrize("shape", [(2**62, 0), (0, 2**63 - 1)])
    def test_shape_that_no_array_can_have_is_invalid(self, wire, shape):
        error = wire.refused(echo("FP32", Input("x", "FP32", shape, b"")))
        assert error.code() == StatusCode.INVALID_ARGUMENT

    def test_message_that_is_no_request_is_refused(self, wire):
        for message in (b"\xff", b"\x0a\x05ab", b"garbage" * 10_000, b"\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.RpcError) as caught:
                wire.send_bytes(f"{SERVICE}ModelInfer", message)
            assert caught.value.code() == StatusCode.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        "method",
        [
            "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
            "ModelStatistics", "RepositoryIndex",
        ],
    )  # fmt: skip
    def test_other_methods_refuse_what_is_no_message_of_theirs(self, wire, method):
        with pytest.raises(grpc.RpcError) as caught:
            wire.send_bytes(f"{SERVICE}{method}", b"\xff\xff")
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT
        assert f"{method}Request" in caught.value.details()

    def test_unknown_fields_of_a_request_are_ignored(self, wire):
        known = request("affine", X, id="later").SerializeToString()
        answer = pb.ModelInferResponse.FromString(
            wire.send_bytes(f"{SERVICE}ModelInfer", known + b"\xfa\x3f\x03abc\xf0\x3f\x01")
        )
        assert answer.id == "later"

    @pytest.mark.parametrize("path", NOT_OFFERED)
    def test_methods_that_are_not_offered_are_unimplemented(self, wire, path):
        with pytest.raises(grpc.RpcError) as caught:
            wire.send_bytes(path, b"")
        assert caught.value.code() == StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize("name", ["x" * 20_000, "日" * 7000])
    def test_error_about_a_long_name_still_reaches_the_caller(self, wire, name):
        error = wire.refused(request(name, X))
        assert error.code() == StatusCode.NOT_FOUND
        assert name[:100] in error.details()

    @pytest.mark.parametrize("value", ["high", float("nan"), float("inf")])
    def test_priority_of_another_kind_is_refused(self, wire, value):
        error = wire.refused(request("affine", X, parameters={"priority": value}))
        assert error.code() == StatusCode.INVALID_ARGUMENT
        assert "priority" in error.details()

    # -- limits ---

    def test_request_over_the_message_limit_is_exhausted(self, wire):
        tensor = Input("x", "UINT8", (1, (MESSAGE_LIMIT_MIB << 20) + 1), bytes((MESSAGE_LIMIT_MIB << 20) + 1))
        error = wire.refused(echo("UINT8", tensor))
        assert error.code() == StatusCode.RESOURCE_EXHAUSTED
        assert wire.infer(request("affine", X)).response.model_version == "2"

    def test_compressed_request_is_measured_uncompressed(self, wire):
        tensor = Input("x", "UINT8", (1, (MESSAGE_LIMIT_MIB << 20) + 1), bytes((MESSAGE_LIMIT_MIB << 20) + 1))
        error = wire.refused(echo("UINT8", tensor), compression=grpc.Compression.Gzip)
        assert error.code() == StatusCode.RESOURCE_EXHAUSTED

    def test_request_just_under_the_message_limit_is_served(self, wire):
        raw = bytes((MESSAGE_LIMIT_MIB << 20) - 100)
        _, answered = wire.infer(echo("UINT8", Input("x", "UINT8", (1, len(raw)), raw))).raw("x_out")
        assert answered == raw

    def test_response_over_the_message_limit_is_exhausted_and_names_it(self, wire):
        floats = (MESSAGE_LIMIT_MIB << 20) // 4 // EXPANDS + 1
        error = wire.refused(request("expanding", numbers("x", [1.0] * floats)))
        assert error.code() == StatusCode.RESOURCE_EXHAUSTED
        assert str(MESSAGE_LIMIT_MIB << 20) in error.details()
        assert len(wire.infer(request("expanding", ONE)).array("x_out")) == EXPANDS

    @pytest.mark.slow
    def test_full_queue_is_exhausted_with_the_time_of_a_retry(self, wire):
        calls = [wire.start(request("limited", ONE)) for _ in range(QUEUE_SIZE + 8)]
        errors = [call.exception() for call in calls]
        refused = [error for error in errors if error is not None]
        assert {error.code() for error in refused} == {StatusCode.RESOURCE_EXHAUSTED}
        assert int(trailing(refused[0])["grpc-retry-pushback-ms"]) > 0
        assert "limited" in refused[0].details()
        assert len(errors) - len(refused) >= QUEUE_SIZE

    def test_streamed_response_over_the_message_limit_is_an_error_in_band(self, wire):
        floats = (MESSAGE_LIMIT_MIB << 20) // 4 // EXPANDS + 1
        messages = [request("expanding", numbers("x", [1.0] * floats), id="a"), request("affine", X, id="b")]
        responses = list(wire.stream(messages))
        assert [response.infer_response.id for response in responses] == ["a", "b"]
        assert str(MESSAGE_LIMIT_MIB << 20) in responses[0].error_message
        assert responses[1].error_message == ""

    # -- deadlines and cancellation ---

    @pytest.mark.slow
    def test_timeout_parameter_is_a_deadline_in_microseconds(self, wire):
        calls = [wire.start(request("slow", ONE, parameters={"timeout": 50_000})) for _ in range(4)]
        errors = [call.exception() for call in calls]
        assert [error.code() for error in errors] == [StatusCode.DEADLINE_EXCEEDED] * 4
        assert all("the deadline passed" in error.details() for error in errors)  # not the client's own words

    @pytest.mark.slow
    @pytest.mark.parametrize("timeout", [0, 10_000_000, 2**62])
    def test_timeout_that_does_not_pass_is_no_failure(self, wire, timeout):
        assert wire.infer(request("affine", X, parameters={"timeout": timeout})).array("y").shape == (1, 4)

    @pytest.mark.slow
    def test_grpc_deadline_ends_the_request_in_the_gateway_too(self, wire):
        before = wire.statistics("slow_timeout").inference_stats
        calls = [wire.start(request("slow_timeout", ONE), timeout_s=0.1) for _ in range(4)]
        assert [call.exception().code() for call in calls] == [StatusCode.DEADLINE_EXCEEDED] * 4
        ended = before.fail.count + 4
        after = wire.wait_for_statistics("slow_timeout", lambda s: s.inference_stats.fail.count >= ended)
        assert after.inference_stats.fail.count == ended
        assert after.inference_stats.success.count == before.success.count

    @pytest.mark.slow
    def test_cancelled_requests_leave_their_neighbours_alone(self, gateway, wire):
        before = wire.statistics("slow").inference_stats
        calls = [wire.start(request("slow", ONE, id=str(i))) for i in range(4)]
        wire.ask("ServerLive", pb.ServerLiveRequest())  # the first of them runs by now
        calls[0].cancel()
        calls[3].cancel()
        assert [calls[i].result().id for i in (1, 2)] == ["1", "2"]
        assert calls[0].cancelled()
        assert calls[3].cancelled()
        ended = before.fail.count + 2
        after = wire.wait_for_statistics("slow", lambda s: s.inference_stats.fail.count >= ended)
        assert after.inference_stats.fail.count == ended
        assert after.inference_stats.success.count == before.success.count + 2
        with urlopen(f"http://{gateway.http}/metrics", timeout=CALL_S) as metrics:
            exposed = metrics.read().decode().splitlines()
        cancelled = [line for line in exposed if 'outcome="cancelled"' in line and 'model="slow"' in line]
        assert cancelled
        assert float(cancelled[0].rpartition(" ")[2]) >= 2

    @pytest.mark.slow
    def test_two_hundred_requests_of_all_kinds_at_once_are_all_right(self, wire):
        def expected_row(i: int) -> tuple[pb.ModelInferRequest, object]:
            match i % 6:
                case 0:
                    return request("affine", numbers("x", [[i, 0, 0, 0]]), id=str(i), version="1"), float(
                        i + 1
                    )
                case 1:
                    return request("affine", numbers("x", [[i, 0, 0, 0]]), id=str(i)), float(2 * i + 1)
                case 2:
                    return request(
                        "pair", numbers("numbers", [i, 1]), words("words", b"%d" % i), id=str(i)
                    ), float(i)
                case 3:
                    a = numbers("a", [[i, 1]] * (i % MAX_ROWS + 1), "INT32")
                    b = numbers("b", [[i]] * (i % MAX_ROWS + 1), "INT32")
                    return request("rows", a, b, id=str(i)), float(i)
                case 4:
                    return request("nothing", X), StatusCode.NOT_FOUND
                case _:
                    return request("affine", X._replace(raw=b"")), StatusCode.INVALID_ARGUMENT

        def outcome(call: grpc.Future) -> object:
            if (error := call.exception()) is not None:
                return error.code()
            response = call.result()
            tensor, raw = response.outputs[0], response.raw_output_contents[0]
            return response.id, float(np.frombuffer(raw, NUMPY_TYPES[tensor.datatype])[0])

        cases = [expected_row(i) for i in range(200)]
        calls = [wire.start(message) for message, _ in cases]
        for call, (message, expected) in zip(calls, cases, strict=True):
            assert outcome(call) == (expected if isinstance(expected, StatusCode) else (message.id, expected))

    # -- streams ---

    @pytest.mark.slow
    def test_stream_answers_in_the_order_of_its_requests(self, wire):
        messages = [
            request("slow_stream", ONE, id="0"),
            *[request("affine", X, id=str(i), version=str(i % 2 + 1)) for i in range(1, 20)],
        ]
        responses = list(wire.stream(messages))
        assert [response.infer_response.id for response in responses] == [str(i) for i in range(20)]
        assert [response.infer_response.model_version for response in responses[1:3]] == ["2", "1"]
        assert {response.error_message for response in responses} == {""}
        assert all(r.infer_response.parameters["triton_final_response"].bool_param for r in responses)
        np.testing.assert_array_equal(
            np.frombuffer(responses[1].infer_response.raw_output_contents[0], "<f4"), [3, 5, 7, 9]
        )

    def test_errors_are_in_band_and_the_stream_stays_open(self, wire):
        sent: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
        call = wire.stream(iter(sent.get, None))
        for message, said in (
            (request("nothing", X, id="a"), "'nothing'"),
            (request("affine", X._replace(raw=b""), id="b"), "'x'"),
            (with_raw_again(request("affine", X, id="c")), "raw_input_contents"),
            (request("failing", numbers("x", [[FAILS_ON]]), id="d"), "declared to fail"),
            (request("affine", X, id="e"), ""),
        ):
            sent.put(message)
            response = next(call)
            assert said in response.error_message
            assert bool(said) == bool(response.error_message)
            if message.id != "c":  # it was not readable
                assert response.infer_response.id == message.id
            assert len(response.infer_response.outputs) == (0 if said else 1)
        sent.put(None)
        assert list(call) == []
        assert call.code() == StatusCode.OK

    def test_error_closes_the_stream_with_a_status_where_the_caller_asks_for_it(self, wire):
        messages = [request("affine", X), request("nothing", X), request("affine", X)]
        call = wire.stream(messages, metadata=[("triton_grpc_error", "true")])
        assert next(call).infer_response.model_version == "2"
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() == StatusCode.NOT_FOUND
        assert "'nothing'" in caught.value.details()

    def test_stream_without_requests_ends_well(self, wire):
        call = wire.stream([])
        assert list(call) == []
        assert call.code() == StatusCode.OK

    @pytest.mark.slow
    def test_long_stream_is_answered_in_full(self, wire):
        messages = [request("affine", X, id=str(i)) for i in range(800)]
        assert [r.infer_response.id for r in wire.stream(messages)] == [m.id for m in messages]

    @pytest.mark.slow
    def test_cancelled_stream_cancels_what_it_had_asked_for(self, wire):
        asked = 30  # far more than run until a slow machine gets round to cancelling
        before = wire.statistics("slow_stream").inference_stats
        read = threading.Event()

        def messages():
            for i in range(asked):
                yield request("slow_stream", ONE, id=str(i))
            read.set()

        call = wire.stream(messages())
        assert next(call).infer_response.id == "0"
        assert read.wait(CALL_S)
        call.cancel()
        # the client may drop what it has read and not yet sent: how many of them arrive is not certain
        failed = before.fail.count
        after = wire.wait_for_statistics("slow_stream", lambda s: s.inference_stats.fail.count > failed)
        ran = after.inference_stats.success.count - before.success.count
        assert 1 <= ran < asked
        assert after.inference_stats.fail.count - failed <= asked - ran

    # -- grpc.health.v1 and reflection ---

    @pytest.mark.parametrize(
        ("service", "status"),
        [
            ("", SERVING), ("inference.GRPCInferenceService", SERVING), ("affine", SERVING),
            ("affine/1", SERVING), ("affine/2", SERVING), ("broken", NOT_SERVING), ("broken/1", NOT_SERVING),
        ],
    )  # fmt: skip
    def test_health_check_of_server_model_and_version(self, wire, service, status):
        assert wire.status(service) == status

    @pytest.mark.parametrize("service", ["nothing", "affine/3", "affine/", "nothing/1", "/"])
    def test_health_check_of_the_unknown_is_not_found(self, wire, service):
        with pytest.raises(grpc.RpcError) as caught:
            wire.status(service)
        assert caught.value.code() == StatusCode.NOT_FOUND
        watch = wire.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
        assert next(watch).status == SERVICE_UNKNOWN
        watch.cancel()

    @pytest.mark.parametrize("service", ["", "affine", "affine/1"])
    def test_health_watch_begins_with_the_status_now(self, wire, service):
        watch = wire.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
        assert next(watch).status == SERVING
        watch.cancel()

    def test_health_refuses_what_is_no_message_of_its_own(self, wire):
        with pytest.raises(grpc.RpcError) as caught:
            wire.send_bytes("/grpc.health.v1.Health/Check", b"\xff")
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT
        for messages in ([b"\xff"], []):
            with pytest.raises(grpc.RpcError) as caught:
                next(
                    wire.channel.stream_stream("/grpc.health.v1.Health/Watch")(iter(messages), timeout=CALL_S)
                )
            assert caught.value.code() == StatusCode.INVALID_ARGUMENT

    @pytest.mark.slow
    def test_health_watch_follows_a_model_that_comes_and_goes(self, wire, model_directory):
        request_ = health_pb2.HealthCheckRequest(service="coming/1")
        watch = wire.health.Watch(request_, timeout=CALL_S)
        assert next(watch).status == SERVICE_UNKNOWN
        write_loopback(model_directory, "coming", [("x", "FP32", [1])])
        assert SERVING in (response.status for response in watch)
        shutil.rmtree(model_directory / "coming")
        assert SERVICE_UNKNOWN in (response.status for response in watch)
        watch.cancel()

    @pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
    def test_reflection_lists_services_and_describes_them(self, wire, package):
        method = wire.channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{package}.ServerReflection"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
        ]
        services, file, itself, unknown = method(iter(asked), timeout=CALL_S)
        assert {service.name for service in services.list_services_response.service} == {
            "inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        protos = [
            descriptor_pb2.FileDescriptorProto.FromString(proto)
            for proto in file.file_descriptor_response.file_descriptor_proto
        ]
        methods = [m.name for p in protos for s in p.service if p.package == "inference" for m in s.method]
        assert {"ModelInfer", "ModelStreamInfer", "ModelStatistics"} <= set(methods)
        assert "ModelConfig" in {message.name for proto in protos for message in proto.message_type}
        assert itself.file_descriptor_response.file_descriptor_proto
        assert unknown.error_response.error_code == StatusCode.NOT_FOUND.value[0]

    def test_reflection_refuses_what_is_no_message_of_its_own(self, wire):
        path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        with pytest.raises(grpc.RpcError) as caught:
            next(wire.channel.stream_stream(path)(iter([b"\xff"]), timeout=CALL_S))
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT

    # -- connections ---

    @pytest.mark.slow
    def test_many_connections_at_once_are_served(self, gateway):
        def on_its_own(i: int) -> str:
            with Wire(gateway.grpc) as own:
                return own.infer(request("affine", X, id=str(i))).response.id

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(on_its_own, range(24))) == [str(i) for i in range(24)]

    @pytest.mark.slow
    def test_drain_answers_what_is_in_flight_and_ends_idle_streams(self, frontend_arguments, tmp_path):
        models, delay = tmp_path / "models", {"delay_us": SLOW_US}
        write_loopback(models, "slow", [("x", "FP32", [1])], options=delay, batching=UNBATCHED)
        log = tmp_path / "gateway.log"
        with GatewayProcess(models, log, *SERVE, *frontend_arguments) as draining:
            draining.wait_for_models(["slow"])
            with Wire(draining.grpc) as own:
                watches = [
                    own.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
                    for service in ("", "slow")
                ]
                assert [next(watch).status for watch in watches] == [SERVING, SERVING]
                open_stream: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
                stream = own.stream(iter(open_stream.get, None))
                open_stream.put(request("slow", ONE, id="streamed"))
                assert next(stream).infer_response.id == "streamed"
                running = own.start(request("slow", ONE, id="running"))
                own.ask("ServerLive", pb.ServerLiveRequest())
                draining.terminate()
                assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
                assert running.result().id == "running"
                assert draining.wait(5.0) == 0  # not the whole grace period of 30 s
                open_stream.put(None)
