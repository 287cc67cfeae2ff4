"""NVIDIA's own client against the gateway: what works with Triton must work here unchanged."""

from __future__ import annotations

import queue

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from served_models import AFFINE_VERSIONS, DATATYPES, FAILS_ON, MAX_ROWS
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

CALL_S = 15.0
X = np.array([[1, 2, 3, 4]], np.float32)
Y = X * 2 + 1  # of the latest version


def tensor(name: str, array: np.ndarray, datatype: str = "FP32") -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def values(datatype: str) -> np.ndarray:
    """Return six elements in tritonclient's form."""
    match datatype:
        case "BYTES":
            return np.array([[b"", b"\0", b"\xff\xfe"], ["ä".encode(), b"x" * 300, b"\n"]], np.object_)
        case "BOOL":
            return np.array([[True, False, True], [False, False, True]])
        case "BF16":
            return np.array([[0.5, -1.0, 3.0], [256.0, -0.0, 2.0**100]], ml_dtypes.bfloat16)
        case _:
            return np.arange(6).reshape(2, 3).astype(triton_to_np_dtype(datatype))


@pytest.fixture
def client(gateway):
    with triton.InferenceServerClient(gateway.grpc) as connected:
        yield connected


@pytest.fixture
async def aio_client(gateway):
    async with triton_aio.InferenceServerClient(gateway.grpc) as connected:
        yield connected


class TestTritonclient:
    def test_server_and_model_are_live_and_ready(self, client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("affine")
        assert client.is_model_ready("affine", "1")
        assert not client.is_model_ready("broken")

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_every_datatype_comes_back(self, client, datatype):
        given = values(datatype)
        result = client.infer(
            f"echo_{datatype.lower()}", [tensor("x", given, datatype)], client_timeout=CALL_S
        )
        assert result.get_output("x_out").datatype == datatype
        np.testing.assert_array_equal(result.as_numpy("x_out"), given)

    def test_version_id_and_requested_output_are_honoured(self, client):
        inputs = [
            tensor("numbers", np.array([1, 2], np.float32)),
            tensor("words", np.array([b"a"], np.object_), "BYTES"),
        ]
        outputs = [triton.InferRequestedOutput("words_out")]
        result = client.infer("pair", inputs, outputs=outputs, request_id="7", model_version="1")
        response = result.get_response()
        assert (response.id, response.model_name, response.model_version) == ("7", "pair", "1")
        assert [output.name for output in response.outputs] == ["words_out"]
        assert result.as_numpy("words_out").tolist() == [b"a"]
        assert result.as_numpy("numbers_out") is None

    def test_latest_version_answers_unless_one_is_named(self, client):
        answers = [client.infer("affine", [tensor("x", X)], model_version=v) for v in ("", *AFFINE_VERSIONS)]
        assert [answer.get_response().model_version for answer in answers] == ["2", *AFFINE_VERSIONS]
        np.testing.assert_array_equal(answers[0].as_numpy("y"), Y)

    def test_custom_parameters_priority_and_timeout_are_accepted(self, client):
        result = client.infer(
            "affine",
            [tensor("x", X)],
            priority=1,
            timeout=5_000_000,
            parameters={"own": "value", "count": 3, "flag": True},
            headers={"x-user": "somebody"},
        )
        np.testing.assert_array_equal(result.as_numpy("y"), Y)

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compressed_requests_are_read(self, client, algorithm):
        result = client.infer("affine", [tensor("x", X)], compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("y"), Y)

    @pytest.mark.parametrize(
        ("model", "inputs", "status", "said"),
        [
            ("nothing", [tensor("x", X)], "StatusCode.NOT_FOUND", "'nothing'"),
            ("affine", [tensor("z", X)], "StatusCode.INVALID_ARGUMENT", "'z'"),
            ("broken", [tensor("x", X)], "StatusCode.UNAVAILABLE", "broken"),
            (
                "failing",
                [tensor("x", np.array([[FAILS_ON]], np.float32))],
                "StatusCode.INTERNAL",
                "declared to fail",
            ),
        ],
        ids=["unknown model", "unknown input", "not ready", "failure"],
    )
    def test_errors_have_status_and_message(self, client, model, inputs, status, said):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs)
        assert caught.value.status() == status
        assert said in caught.value.message()

    def test_sequence_and_classification_are_refused(self, client):
        with pytest.raises(InferenceServerException, match="sequence_id"):
            client.infer("affine", [tensor("x", X)], sequence_id=5, sequence_start=True)
        with pytest.raises(InferenceServerException, match="classification"):
            client.infer(
                "affine", [tensor("x", X)], outputs=[triton.InferRequestedOutput("y", class_count=2)]
            )

    @pytest.mark.slow
    def test_client_timeout_is_the_deadline(self, client):
        with pytest.raises(InferenceServerException, match=r"(?i)deadline") as caught:
            client.infer("slow", [tensor("x", np.zeros(1, np.float32))], client_timeout=0.05)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"

    def test_async_infer_calls_back_and_can_be_cancelled(self, client):
        answers: queue.SimpleQueue = queue.SimpleQueue()

        def call_back(result, error):
            answers.put((result, error))

        client.async_infer("affine", [tensor("x", X)], call_back)
        result, error = answers.get(timeout=CALL_S)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), Y)
        running = client.async_infer("slow", [tensor("x", np.zeros(1, np.float32))], call_back)
        running.cancel()
        result, error = answers.get(timeout=CALL_S)
        assert result is None
        assert error.status() == "StatusCode.CANCELLED"

    def test_repository_and_extensions_that_are_not_offered_say_so(self, client):
        index = {
            (model.name, model.version): model.state for model in client.get_model_repository_index().models
        }
        assert index["affine", "2"] == "READY"
        for call in (
            lambda: client.load_model("affine"),
            lambda: client.unload_model("affine"),
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
        ):
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert caught.value.status() == "StatusCode.UNIMPLEMENTED"

    # -- perf_analyzer over gRPC: what it asks for before and after its load, and the fields it reads ---

    @pytest.mark.slow
    def test_calls_of_perf_analyzer_are_answered(self, client):
        assert "statistics" in client.get_server_metadata().extensions
        metadata = client.get_model_metadata("rows", as_json=True)
        config = client.get_model_config("rows", as_json=True)["config"]
        assert config["max_batch_size"] == MAX_ROWS
        assert {"sequence_batching", "ensemble_scheduling"}.isdisjoint(config)
        assert not config.get("model_transaction_policy", {}).get("decoupled", False)
        assert not config.get("response_cache", {}).get("enable", False)
        inputs = []
        for described, configured in zip(metadata["inputs"], config["input"], strict=True):
            assert described["name"] == configured["name"]
            shape = [int(size) for size in described["shape"]]
            dims = [int(size) for size in configured["dims"]]
            assert shape == [-1, *dims]  # the batch dimension is only in the metadata
            assert configured["data_type"] == f"TYPE_{described['datatype']}"
            inputs.append(tensor(described["name"], np.ones([2, *dims], np.int32), described["datatype"]))
        version = max(metadata["versions"], key=int)
        before = client.get_inference_statistics("rows", version).model_stats[0]
        requests = 3
        for i in range(requests):
            assert client.infer("rows", inputs, request_id=str(i)).get_response().id == str(i)
        after = client.get_inference_statistics("rows", version).model_stats[0]
        assert (after.name, after.version) == ("rows", version)
        assert after.inference_count - before.inference_count == requests * 2
        assert after.execution_count - before.execution_count == requests
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            earlier, later = getattr(before.inference_stats, part), getattr(after.inference_stats, part)
            assert later.count - earlier.count == requests
            assert later.ns > earlier.ns
        assert after.inference_stats.cache_hit.count == after.inference_stats.cache_miss.count == 0

    # -- streams ---

    def test_stream_answers_requests_and_errors_in_order(self, client):
        answers: queue.SimpleQueue = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            "affine", [tensor("x", X)], request_id="0", enable_empty_final_response=True
        )
        client.async_stream_infer("nothing", [tensor("x", X)], request_id="1")
        client.async_stream_infer("affine", [tensor("x", X)], request_id="2", model_version="1")
        first, error = answers.get(timeout=CALL_S)
        assert error is None
        assert first.get_response().id == "0"
        assert first.get_response().parameters["triton_final_response"].bool_param
        np.testing.assert_array_equal(first.as_numpy("y"), Y)
        nothing, error = answers.get(timeout=CALL_S)
        assert nothing is None
        assert "'nothing'" in error.message()
        last, error = answers.get(timeout=CALL_S)
        assert error is None
        assert (last.get_response().id, last.get_response().model_version) == ("2", "1")
        client.stop_stream()

    def test_stream_with_grpc_errors_ends_with_the_status(self, client):
        answers: queue.SimpleQueue = queue.SimpleQueue()
        client.start_stream(
            lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"}
        )
        client.async_stream_infer("nothing", [tensor("x", X)])
        result, error = answers.get(timeout=CALL_S)
        assert result is None
        assert error.status() == "StatusCode.NOT_FOUND"
        client.stop_stream()

    def test_stream_is_stopped_while_requests_run(self, client):
        answers: queue.SimpleQueue = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("slow", [tensor("x", np.zeros(1, np.float32))])
        client.stop_stream(cancel_requests=True)
        result, error = answers.get(timeout=CALL_S)
        assert result is None
        assert error.status() == "StatusCode.CANCELLED"
        np.testing.assert_array_equal(client.infer("affine", [tensor("x", X)]).as_numpy("y"), Y)

    # -- asyncio ---

    async def test_aio_client_asks_and_infers(self, aio_client):
        assert await aio_client.is_server_live()
        assert await aio_client.is_server_ready()
        assert await aio_client.is_model_ready("affine", "2")
        metadata = await aio_client.get_model_metadata("affine")
        assert list(metadata.versions) == list(AFFINE_VERSIONS)
        result = await aio_client.infer("affine", [tensor("x", X)], request_id="a", client_timeout=CALL_S)
        assert result.get_response().id == "a"
        np.testing.assert_array_equal(result.as_numpy("y"), Y)
        with pytest.raises(InferenceServerException) as caught:
            await aio_client.infer("affine", [tensor("x", X)], model_version="9")
        assert caught.value.status() == "StatusCode.NOT_FOUND"

    async def test_aio_stream_answers_in_order(self, aio_client):
        async def requests():
            for i, model in enumerate(("affine", "nothing", "affine")):
                yield {"model_name": model, "inputs": [tensor("x", X)], "request_id": str(i)}

        answers = [answer async for answer in aio_client.stream_infer(requests(), stream_timeout=CALL_S)]
        assert [error is None for _, error in answers] == [True, False, True]
        assert [result.get_response().id for result, error in answers if error is None] == ["0", "2"]
        np.testing.assert_array_equal(answers[2][0].as_numpy("y"), Y)
