"""One inference answer."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from crossgate.contents import decode_contents
from crossgate.errors import MalformedResponse
from crossgate.parameters import Parameter, decode_parameters
from crossgate.tensors import Array, decode, objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crossgate.headers import Headers
    from protos import inference_pb2 as pb

REVISION_KEY = "crossgate-revision"
VERSION_KEY = "crossgate-version"


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """Outputs by name: `result["probabilities"]`, and iterating gives the names in the server's order.

    `version` is the one that served, `id` the request's. `revision` is the configuration revision under which
    the gateway answered, None from other servers and for answers of a stream. `outputs` maps names to arrays,
    which are read-only where they are views of the received bytes; `datatypes` maps names to the protocol's
    datatypes.
    """

    model: str
    version: str
    id: str
    revision: int | None
    parameters: Mapping[str, Parameter]
    outputs: Mapping[str, Array]
    datatypes: Mapping[str, str]

    @classmethod
    def from_message(cls, message: pb.ModelInferResponse, trailing: Headers = ()) -> InferResult:
        """Raises MalformedResponse, naming the output, for an answer that breaks the protocol."""
        outputs = _decode_outputs(message)
        metadata = dict(trailing)
        return cls(
            model=message.model_name,
            version=message.model_version or str(metadata.get(VERSION_KEY, "")),
            id=message.id,
            revision=_revision(metadata.get(REVISION_KEY)),
            parameters=decode_parameters(message.parameters),
            outputs=MappingProxyType(outputs),
            datatypes=MappingProxyType({output.name: output.datatype for output in message.outputs}),
        )

    def as_strings(self, name: str) -> Array:
        """A BYTES output as an object array of str. Raises TypeError for another datatype, UnicodeDecodeError
        for elements that are not UTF-8."""
        array = self[name]
        if self.datatypes[name] != "BYTES":
            raise TypeError(f"output {name!r} is {self.datatypes[name]}, not BYTES")
        return objects([element.decode() for element in array.ravel()]).reshape(array.shape)

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; there are {', '.join(self.outputs) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __contains__(self, name: object) -> bool:
        return name in self.outputs


def _decode_outputs(message: pb.ModelInferResponse) -> dict[str, Array]:
    raw = list(message.raw_output_contents)
    if raw and len(raw) != len(message.outputs):
        raise MalformedResponse(f"{len(message.outputs)} outputs, but {len(raw)} raw contents")
    arrays: dict[str, Array] = {}
    for index, output in enumerate(message.outputs):
        name, shape = output.name, tuple(output.shape)
        if name in arrays:
            raise MalformedResponse(f"output {name!r} comes twice")
        if not raw:
            arrays[name] = decode_contents(name, output.datatype, shape, output.contents)
        elif output.HasField("contents"):
            raise MalformedResponse(f"output {name!r} has both raw and typed contents")
        else:
            arrays[name] = decode(name, output.datatype, shape, raw[index])
    return arrays


def _revision(value: str | bytes | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None
