"""Write the seed corpora of the fuzz targets: `PYTHONPATH=. python native/fuzz/seeds.py`.

The names say what a seed is; running it again gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc._utils import _get_inference_request

from protos import inference_pb2 as pb

CORPUS = Path(__file__).parent / "corpus"
FIELDS = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [1.5, float("nan")]),
    "FP64": ("fp64_contents", [1.5, float("-inf")]),
    "BYTES": ("bytes_contents", [b"", b"text"]),
}


def request(**fields: object) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", **fields)  # type: ignore[arg-type]  # as the stubs say


def typed(datatype: str, field: str, values: list) -> pb.ModelInferRequest:
    message = request()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    getattr(tensor.contents, field).extend(values)
    return message


def raw(datatype: str, shape: list[int], data: bytes, **fields: object) -> pb.ModelInferRequest:
    message = request(raw_input_contents=[data], **fields)
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    return message


def delimited(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2, len(value)]) + value


def by_tritonclient() -> bytes:
    """What Triton's own client sends, with everything that it can add."""
    inputs = [triton.InferInput("image", [1, 3, 8, 8], "FP32"), triton.InferInput("text", [2], "BYTES")]
    inputs[0].set_data_from_numpy(np.zeros((1, 3, 8, 8), np.float32))
    inputs[1].set_data_from_numpy(np.array([b"a", b"bc"], np.object_))
    outputs = [triton.InferRequestedOutput("y"), triton.InferRequestedOutput("z")]
    return _get_inference_request(
        model_name="m",
        inputs=inputs,
        model_version="1",
        request_id="abc",
        outputs=outputs,
        sequence_id=7,
        sequence_start=True,
        sequence_end=False,
        priority=3,
        timeout=1_000_000,
        parameters={"text": "é", "half": 0.5},
    ).SerializeToString()


def good() -> dict[str, bytes]:
    seeds = {f"typed-{datatype}": typed(datatype, *FIELDS[datatype]) for datatype in FIELDS}
    seeds |= {
        f"raw-{datatype}": raw(datatype, [1, 2], bytes(2 * size), id="7")
        for datatype, size in (("FP32", 4), ("FP16", 2), ("INT64", 8), ("BOOL", 1), ("FP8", 1))
    }
    seeds["raw-elements"] = raw("BYTES", [2], b"\x01\0\0\0a\0\0\0\0")
    seeds["raw-elements-missing"] = raw("BYTES", [3], b"\x01\0\0\0a\0\0\0\0")
    seeds["raw-elements-cut"] = raw("BYTES", [1], b"\xff\xff\xff\xffa")
    seeds["raw-large"] = raw("UINT8", [20_000], bytes(20_000))
    seeds["raw-no-elements"] = raw("FP32", [-1, 0], b"")
    seeds["empty-typed"] = request()
    seeds["empty-typed"].inputs.add(name="x", datatype="FP32", shape=[2, 0])
    many = seeds["many-inputs"] = request(raw_input_contents=[b"abcd"] * 20)
    for i in range(20):
        many.inputs.add(name=f"x{i}", datatype="INT32", shape=[1])
        many.outputs.add(name=f"y{i % 18}")
    parameters = seeds["parameters"] = raw("INT8", [1], b"\x05", model_version="2")
    parameters.parameters["bool"].bool_param = True
    parameters.parameters["int64"].int64_param = -1
    parameters.parameters["uint64"].uint64_param = 2**64 - 1
    parameters.parameters["double"].double_param = 0.1
    parameters.parameters["string"].string_param = "é"
    parameters.parameters["none"].SetInParent()
    parameters.inputs[0].parameters["binary_data_size"].int64_param = 1
    found = {name: message.SerializeToString(deterministic=True) for name, message in seeds.items()}
    plain = found["raw-FP32"]
    found["tritonclient"] = by_tritonclient()
    found["nothing"] = b""
    found["unknown-fields"] = b"\xfa\x3f\x03abc\xf0\x3f\x01\xf1\x3f" + bytes(8) + b"\x7b\x73\x74\x7c" + plain
    found["deep-groups"] = plain + b"\x7b" * 100 + b"\x7c" * 100
    found["in-parts"] = delimited(5, b"\x0a\x01y\x2a\x05\x35abcd\x12\x04FP32\x2a\x06\x32\x04efgh\x0a\x01n")
    found["unpacked"] = delimited(5, b"\x12\x04INT8\x18\x02\x2a\x06\x10\x01\x12\x02\x02\x03")
    found["wrong-wire-types"] = b"\x08\x01\x1d\0\0\0\0\x2b\x2c\x38\x01" + plain
    found["entry-in-parts"] = delimited(4, b"\x12\x02\x08\x01\x0a\x01k\x12\x03\x1a\x01v") + plain
    found["entry-with-unknown-field"] = delimited(4, b"\x0a\x01k\x12\x02\x08\x01\x18\x01") + plain
    return found


def malformed() -> dict[str, bytes]:
    whole = raw("FP32", [1, 2], bytes(8)).SerializeToString()
    both = raw("FP32", [1], bytes(4))
    both.inputs[0].contents.fp32_contents.append(1)
    form = raw("FP32", [1], bytes(4))
    form.outputs.add(name="it's").parameters["classification"].int64_param = 1
    two = request(raw_input_contents=[b"a", b"b"])
    two.inputs.add(name="x")
    return {
        "bad-both": both.SerializeToString(),
        "bad-count": two.SerializeToString(),
        "bad-cut": whole[:-3],
        "bad-deep-groups": whole + b"\x7b" * 101 + b"\x7c" * 101,
        "bad-field": typed("INT8", "fp32_contents", [1.0]).SerializeToString(),
        "bad-field-number": whole + b"\x02\x00",
        "bad-form": form.SerializeToString(),
        "bad-group": whole + b"\x7b\x74",
        "bad-half-float": delimited(5, b"\x12\x04FP32\x2a\x03\x32\x01x"),
        "bad-long-varint": whole + b"\x78" + b"\xff" * 11,
        "bad-no-data": delimited(5, b"\x12\x04FP32\x1a\x01\x02"),
        "bad-range": typed("INT8", "int_contents", [128]).SerializeToString(),
        "bad-raw-only": typed("FP16", "fp32_contents", [1.0]).SerializeToString(),
        "bad-utf8": b"\x0a\x02\xff\xfe" + whole,
        "bad-wire-type": whole + b"\x7e",
    }


def streams() -> dict[str, bytes]:
    """gRPC messages behind three bytes that say how the stream is read."""

    def framed(body: bytes, flag: int = 0) -> bytes:
        return bytes([flag]) + len(body).to_bytes(4, "big") + body

    roomy = bytes([6, 255, 0])
    return {
        "one": roomy + framed(b"hello"),
        "three": roomy + framed(b"") + framed(b"x" * 300) + framed(b"abc", 1),
        "large": roomy + framed(bytes(9000)) + framed(b"end"),
        "bad-size": bytes([1, 1, 1]) + framed(b"x" * 65),
        "bad-flag": roomy + framed(b"hello", 2),
        "bad-http1": roomy + b"GET / HTTP/1.1\r\n",
        "cut": roomy + framed(b"hello")[:-2],
    }


if __name__ == "__main__":
    for target, seeds in {"request": good() | malformed(), "framing": streams()}.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, message in seeds.items():
            (CORPUS / target / name).write_bytes(message)
