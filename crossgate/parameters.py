"""Request and response parameters: named booleans, integers, floats and texts."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

Parameter = bool | int | float | str


def encode_parameters(parameters: Mapping[str, Parameter]) -> dict[str, pb.InferParameter]:
    """Each value in the field of its type; an integer above 2**63 - 1 goes as unsigned.

    Raises TypeError for a name that is no text or a value of any other type, ValueError for an integer that
    needs more than 64 bits; both name the parameter.
    """
    return {_name(name): _encode(name, value) for name, value in parameters.items()}


def decode_parameters(parameters: Mapping[str, pb.InferParameter]) -> Mapping[str, Parameter]:
    """A read-only mapping; a parameter without a value is left out."""
    values: dict[str, Parameter] = {}
    for name, parameter in parameters.items():
        field = parameter.WhichOneof("parameter_choice")
        if field is not None:
            values[name] = getattr(parameter, field)
    return MappingProxyType(values)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a parameter's name must be text, not {name!r}")
    return name


def _encode(name: str, value: object) -> pb.InferParameter:
    if isinstance(value, (bool, np.bool_)):
        return pb.InferParameter(bool_param=bool(value))
    if isinstance(value, (int, np.integer)):
        number = int(value)
        if -(2**63) <= number < 2**63:
            return pb.InferParameter(int64_param=number)
        if 0 <= number < 2**64:
            return pb.InferParameter(uint64_param=number)
        raise ValueError(f"parameter {name!r} is {number}, which needs more than 64 bits")
    if isinstance(value, (float, np.floating)):
        return pb.InferParameter(double_param=float(value))
    if isinstance(value, str):
        return pb.InferParameter(string_param=value)
    raise TypeError(f"parameter {name!r} is a {type(value).__name__}, not bool, int, float or str")
