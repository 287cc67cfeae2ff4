"""A bare grpc.aio server on uvloop that echoes: what a Python gRPC handler costs before it does anything.

`bytes` answers with the request's bytes, untouched. `protobuf` also parses the request and serialises a
response that holds the first input's data. Started as `python -P aio_echo.py bytes|protobuf`; prints `ready
grpc=ADDRESS`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

from protos import inference_pb2 as pb


async def echo_bytes(request: bytes, context: Any) -> bytes:
    return request


async def echo_message(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
    tensor = request.inputs[0]
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    response.outputs.add(name="OUTPUT0", datatype=tensor.datatype, shape=tensor.shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


class EveryMethod(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types here
    """One generic handler: registered methods would cost a future each per accepted call in some grpcio
    releases."""

    def __init__(self, mode: str) -> None:
        if mode == "bytes":
            self._handler = grpc.unary_unary_rpc_method_handler(echo_bytes)
        else:
            self._handler = grpc.unary_unary_rpc_method_handler(
                echo_message, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
            )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


async def serve(mode: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((EveryMethod(mode),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(f"ready grpc=127.0.0.1:{port}", flush=True)
    await stopped.wait()
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
