"""One inference request, as a user writes it and as it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossgate.parameters import Parameter, encode_parameters
from crossgate.tensors import encode
from protos import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What `infer` takes as arguments, as one object for `stream`.

    `inputs` maps names to arrays, scalars, nested lists or `Tensor`s (see `crossgate.tensors.encode` for
    datatypes).

    An empty `version` lets the gateway route; empty `outputs` means all. `priority` is sent as the
    parameter of that name, from 0 to 2**64 - 1; what it means is the server's affair (Triton: 1 is most
    urgent, 0 the default).
    """

    model: str
    inputs: Mapping[str, object]
    version: str = ""
    outputs: Sequence[str] = ()
    request_id: str = ""
    parameters: Mapping[str, Parameter] | None = None
    priority: int | None = None

    def to_message(self) -> pb.ModelInferRequest:
        """The request with every input raw, in the order of `inputs`.

        Raises TypeError or ValueError, naming the argument or the tensor, for what cannot be sent.
        """
        _require_text("model", self.model)
        if not self.model:
            raise ValueError("model must not be empty")
        _require_text("version", self.version)
        _require_text("request_id", self.request_id)
        message = pb.ModelInferRequest(
            model_name=self.model,
            model_version=self.version,
            id=self.request_id,
            parameters=self._parameters(),
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in self._outputs()],
        )
        if not isinstance(self.inputs, Mapping):
            raise TypeError(f"inputs must map names to tensors, not be a {type(self.inputs).__name__}")
        for name, value in self.inputs.items():
            _require_text("an input's name", name)
            tensor = encode(name, value)
            message.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(tensor.data)
        return message

    def _parameters(self) -> dict[str, pb.InferParameter]:
        parameters = encode_parameters(self.parameters or {})
        if self.priority is not None:
            if "priority" in parameters:
                raise ValueError("priority is given twice, as an argument and as a parameter")
            if not isinstance(self.priority, int):
                raise TypeError(f"priority must be an integer, not {self.priority!r}")
            if not 0 <= self.priority < 2**64:
                raise ValueError(f"priority must be from 0 to 2**64 - 1, not {self.priority}")
            parameters["priority"] = pb.InferParameter(
                uint64_param=self.priority
            )  # the field Triton's clients use
        return parameters

    def _outputs(self) -> Sequence[str]:
        if isinstance(self.outputs, (str, bytes)):
            raise TypeError(f"outputs must be a sequence of names, not the text {self.outputs!r}")
        for name in self.outputs:
            _require_text("an output's name", name)
        return self.outputs


def _require_text(argument: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be text, not {value!r}")
