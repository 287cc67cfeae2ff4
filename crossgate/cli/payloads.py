"""Requests to be sent many times: from .npy files, from JSON in the protocol's HTTP form, or random."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossgate.request import InferRequest
from crossgate.tensors import RAW_DTYPES, Tensor, encode, objects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crossgate.descriptions import ModelMetadata, TensorMetadata
    from protos import inference_pb2 as pb

_HIGHEST_RANDOM_INTEGER = 8  # an index into almost any table


class PayloadInvalid(Exception):
    """The message names the input or the file, and what is wrong."""


def from_files(texts: Sequence[str], metadata: ModelMetadata) -> dict[str, object]:
    """Read `[NAME=][@]FILE.npy` for each input: {name: tensor}. The name may be left out where there is one
    input.

    Raises:
        PayloadInvalid: a file cannot be read, an input is unknown, missing or given twice, or does not fit
            the model's datatype and shape.
    """
    signature = {tensor.name: tensor for tensor in metadata.inputs}
    tensors: dict[str, object] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals:
            if len(signature) != 1:
                raise PayloadInvalid(f"{text}: say NAME=FILE; the model takes {', '.join(signature)}")
            name, file = next(iter(signature)), text
        if name not in signature:
            raise PayloadInvalid(f"unknown input {name!r}; the model takes {', '.join(signature)}")
        if name in tensors:
            raise PayloadInvalid(f"input {name} is given twice")
        tensors[name] = _fitting(signature[name], _read_array(name, Path(file.removeprefix("@"))))
    if missing := [name for name in signature if name not in tensors]:
        raise PayloadInvalid(f"no file for input {', '.join(missing)}")
    return tensors


def _read_array(name: str, path: Path) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise PayloadInvalid(f"input {name}: there is no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise PayloadInvalid(f"input {name}: {path} is no .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise PayloadInvalid(f"input {name}: {path} holds several arrays; give a .npy file of one")
    return array


def _fitting(tensor: TensorMetadata, array: Any) -> object:
    """The array as the model takes it; values are kept, or it is refused."""
    wanted, got = tensor.shape, array.shape
    fits = len(wanted) == len(got) and all(w in (-1, g) for w, g in zip(wanted, got, strict=True))
    if not fits:
        raise PayloadInvalid(
            f"input {tensor.name} has shape {list(got)}, the model takes {list(wanted)} (-1 is any)"
        )
    return _converted(tensor.name, tensor.datatype, array)


def _converted(name: str, datatype: str, array: Any) -> object:
    if datatype == "BYTES":
        if array.dtype.kind not in "SUO":
            raise PayloadInvalid(f"input {name}: {array.dtype} is no text, the model takes BYTES")
        return array
    if datatype == "BF16":
        if array.dtype != np.uint16:
            raise PayloadInvalid(f"input {name}: BF16 is given as its bits, in uint16, not {array.dtype}")
        return Tensor("BF16", array.shape, array.astype("<u2").tobytes())
    if datatype not in RAW_DTYPES:
        raise PayloadInvalid(f"input {name}: unknown datatype {datatype!r}")
    dtype = RAW_DTYPES[datatype]
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f") > (dtype.kind == "f"):
        raise PayloadInvalid(f"input {name}: {array.dtype} does not become {datatype}")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted.astype(array.dtype), array):
        raise PayloadInvalid(f"input {name}: some values do not fit {datatype}")
    return converted


def from_json(path: Path, model: str, version: str) -> list[InferRequest]:
    """Read one request or a list of them, each as in the protocol's HTTP form: {"inputs": [{"name",
    "datatype", "shape", "data"}], "id"?, "parameters"?, "outputs"?}.

    Raises:
        PayloadInvalid: the file cannot be read, or something in it is not of this form.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise PayloadInvalid(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise PayloadInvalid(f"{path} cannot be read as JSON: {error}") from None
    documents = document if isinstance(document, list) else [document]
    if not documents:
        raise PayloadInvalid(f"{path} has no request")
    try:
        return [_request(each, model, version) for each in documents]
    except PayloadInvalid as error:
        raise PayloadInvalid(f"{path}: {error}") from None


def _request(document: Any, model: str, version: str) -> InferRequest:
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise PayloadInvalid('a request is an object with a list of "inputs"')
    if unknown := sorted(document.keys() - {"inputs", "outputs", "id", "parameters"}):
        raise PayloadInvalid(f"unknown field {unknown[0]!r}; there are inputs, outputs, id, parameters")
    tensors: dict[str, object] = {}
    for tensor in document["inputs"]:
        name, value = _json_tensor(tensor)
        if name in tensors:
            raise PayloadInvalid(f"input {name} is given twice")
        tensors[name] = value
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(o, dict) and "name" in o for o in outputs):
        raise PayloadInvalid('"outputs" is a list of objects with a "name"')
    return InferRequest(
        model,
        tensors,
        version,
        outputs=[output["name"] for output in outputs],
        request_id=document.get("id", ""),
        parameters=document.get("parameters"),
    )


def _json_tensor(tensor: Any) -> tuple[str, object]:
    fields = ("name", "datatype", "shape", "data")
    if not isinstance(tensor, dict) or tensor.keys() - {"parameters"} != set(fields):
        raise PayloadInvalid(f"an input is an object with {', '.join(fields)}")
    name, datatype, shape, data = (tensor[field] for field in fields)
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise PayloadInvalid("an input's name and datatype are texts")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise PayloadInvalid(f"input {name}: shape is a list of integers, none below 0")
    if datatype == "BYTES":
        values: Any = objects(_flat(data))
        if not all(isinstance(value, str) for value in values):
            raise PayloadInvalid(f"input {name}: the data of BYTES is texts")
    elif datatype == "BF16":
        raise PayloadInvalid(f"input {name}: BF16 has no form in JSON")
    else:
        try:
            values = np.array(_flat(data) or [], RAW_DTYPES.get(datatype) if not data else None)
        except (ValueError, OverflowError) as error:
            raise PayloadInvalid(f"input {name}: {error}") from None
    if values.size != math.prod(shape):
        raise PayloadInvalid(
            f"input {name}: {values.size} elements, but shape {shape} has {math.prod(shape)}"
        )
    return name, _converted(name, datatype, values.reshape(shape))


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [element for entry in data for element in _flat(entry)]


def at_random(
    metadata: ModelMetadata, shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, object]:
    """Draw every input: a variable first dimension is 1, other variable ones come from `shapes` ({input:
    shape}). Floats lie in [0, 1), integers in [0, 8).

    Raises:
        PayloadInvalid: a dimension is not known, or a shape does not fit.
    """
    signature = {tensor.name: tensor for tensor in metadata.inputs}
    if unknown := [name for name in shapes if name not in signature]:
        raise PayloadInvalid(f"unknown input {unknown[0]!r}; the model takes {', '.join(signature)}")
    random = np.random.default_rng(seed)
    return {
        name: _fitting(tensor, _draw(tensor.datatype, _shape(tensor, shapes.get(name)), random))
        for name, tensor in signature.items()
    }


def _shape(tensor: TensorMetadata, given: tuple[int, ...] | None) -> tuple[int, ...]:
    if given is not None:
        return given
    shape = tuple(1 if at == 0 and size == -1 else size for at, size in enumerate(tensor.shape))
    if -1 in shape:
        raise PayloadInvalid(
            f"input {tensor.name} has shape {list(tensor.shape)}: say its variable dimensions, such as "
            f"--shape {tensor.name}:{','.join('8' if size == -1 else str(size) for size in shape)}"
        )
    return shape


def _draw(datatype: str, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if datatype == "BYTES":
        count = math.prod(shape)
        return objects([f"text {number}" for number in range(count)]).reshape(shape)
    if datatype == "BF16":
        return (random.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(np.bool_)
    if datatype in ("FP16", "FP32", "FP64"):
        return random.random(shape).astype(RAW_DTYPES[datatype])
    return random.integers(0, _HIGHEST_RANDOM_INTEGER, shape)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read NAME:SIZE,SIZE,...

    Raises:
        PayloadInvalid
    """
    name, colon, sizes = text.rpartition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not colon or not name or not shape or min(shape) < 0:
        raise PayloadInvalid(f"shape {text!r} is not of the form NAME:SIZE,SIZE")
    return name, shape


def malformed_of(message: pb.ModelInferRequest) -> list[bytes]:
    """Serialised requests that every server of the protocol must refuse with INVALID_ARGUMENT: an input that
    no model has, a tensor whose last byte is missing (unless all are empty), and a message that is cut off.
    """
    unknown = copy.deepcopy(message)
    unknown.inputs[0].name = f"{message.inputs[0].name}-unknown"
    malformed = [unknown.SerializeToString(), message.SerializeToString()[:-1]]
    for at, raw in enumerate(message.raw_input_contents):
        if raw:
            short = copy.deepcopy(message)
            short.raw_input_contents[at] = raw[:-1]
            return [short.SerializeToString(), *malformed]
    return malformed


def describe(tensors: Mapping[str, object]) -> str:
    """One line: names, datatypes and shapes."""
    encoded = {name: encode(name, value) for name, value in tensors.items()}
    return ", ".join(f"{name} {tensor.datatype} {list(tensor.shape)}" for name, tensor in encoded.items())
