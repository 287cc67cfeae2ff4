"""Commands that talk to a running gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossgate import Client, CrossgateError, Unauthenticated
from crossgate.cli import output
from crossgate.cli.metadata import token_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

_DTYPES = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def list_models(address: str, credentials: grpc.ChannelCredentials | None) -> list[tuple[str, str, str, str]]:
    """Return (model, version, state, reason) of everything a gateway knows."""
    with Client(address, timeout_s=5.0, credentials=credentials, metadata=token_metadata()) as client:
        try:
            return [(m.name, m.version, m.state, m.reason) for m in client.models()]
        except CrossgateError as error:
            output.fail(_explained(address, error))


def infer_once(
    model: str,
    inputs: list[str],
    address: str,
    credentials: grpc.ChannelCredentials | None,
    outputs: tuple[str, ...],
    timeout_s: float,
    metadata: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    """Send one request made of NAME=VALUE texts and print what comes back."""
    name, _, version = model.partition("/")
    sent = {**token_metadata(), **metadata}
    with Client(address, timeout_s=timeout_s, credentials=credentials, metadata=sent) as client:
        try:
            described = client.model_metadata(name, version)
            if not inputs:
                rows = [("input", t.name, t.datatype, str(list(t.shape))) for t in described.inputs]
                rows += [("output", t.name, t.datatype, str(list(t.shape))) for t in described.outputs]
                output.rows(("", "name", "datatype", "shape"), rows, as_json=as_json)
                return
            datatypes = {t.name: t.datatype for t in described.inputs}
            tensors = dict(_read_input(text, datatypes) for text in inputs)
            result = client.infer(name, tensors, version=version, outputs=outputs)
        except CrossgateError as error:
            output.fail(_explained(address, error))
    arrays = {each: result[each] for each in result}
    if as_json:
        values = {each: _plain(array) for each, array in arrays.items()}
        output.as_json(
            {"model": result.model, "version": result.version, "revision": result.revision, "outputs": values}
        )
        return
    print(f"{result.model} version {result.version}, revision {result.revision}")
    for each, array in arrays.items():
        print(f"{each} {array.dtype} {list(array.shape)}")
        print(np.array2string(array, threshold=64, precision=6))


def _read_input(text: str, datatypes: dict[str, str]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        output.fail(f"{text!r} is not NAME=VALUE")
    if name not in datatypes:
        output.fail(f"unknown input {name!r}; the model takes {', '.join(datatypes)}")
    datatype = datatypes[name]
    try:
        if value.startswith("@") and value.endswith(".npy"):
            data: Any = np.load(value[1:], allow_pickle=False)
        else:
            data = json.loads(Path(value[1:]).read_text() if value.startswith("@") else value)
        if datatype == "BYTES":
            return name, np.array(data, dtype=object)
        return name, np.asarray(data, dtype=_DTYPES[datatype]) if datatype in _DTYPES else data
    except (OSError, ValueError, OverflowError) as error:
        output.fail(f"input {name}: {error}")


def _plain(array: Any) -> Any:
    values = array.tolist()
    return json.loads(json.dumps(values, default=lambda raw: raw.decode(errors="replace")))


def _explained(address: str, error: CrossgateError) -> str:
    text = str(error)
    hint = ""
    if isinstance(error, Unauthenticated) and not token_metadata():
        hint = "; `crossgate` sends the one in CROSSGATE_TOKEN"
    return (text if address in text else f"{address}: {text}") + hint
