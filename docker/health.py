"""Whether the gateway or the pool of this container is well: exit status 0 if it is, else 1 and one line why.

A gateway is asked by `grpc.health.v1`, on its Unix socket: it needs no certificate there, whatever its port
asks for. A pool on a Unix socket is asked what it has. Of a pool on gRPC only the port is tried: its service
answers none but the gateways that it knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import grpc
from grpc_health.v1 import health_pb2

from gateway.workerpool.remote.address import PoolAddress, PoolAddressInvalid, parse_pool_address
from gateway.workerpool.remote.exchange import Describe, Described, Exchange, ExchangeBroken

_LIMIT_S = 4.0  # less than the image's limit, so that there is time to say why


class Unwell(Exception):
    """The message says why."""


def check_gateway(path: str) -> None:
    """Ask the gateway behind this socket for the whole server's health. Raises Unwell."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            status = check(health_pb2.HealthCheckRequest(), timeout=_LIMIT_S).status
        except grpc.RpcError as error:
            raise Unwell(f"{path}: {error.code().name}: {error.details()}") from error
    if status != health_pb2.HealthCheckResponse.SERVING:
        raise Unwell(f"{path}: {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}")


def check_pool(address: PoolAddress) -> None:
    """Raises Unwell."""
    try:
        if address.path:
            asyncio.run(_describe(address.path))
        else:
            with socket.create_connection(("127.0.0.1", address.port), _LIMIT_S):
                pass
    except (OSError, ExchangeBroken) as error:
        raise Unwell(f"{address}: {error}") from error


async def _describe(path: str) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    exchange = Exchange(sock)
    try:
        sock.connect(path)
        exchange.send(Describe())
        answer, _ = await exchange.receive(_LIMIT_S)
    finally:
        exchange.close()
    if not isinstance(answer, Described):
        raise Unwell(f"{path}: {answer}")


def main() -> None:
    """A pool has `CROSSGATE_WORKER_LISTEN`, a gateway `CROSSGATE_SERVE_GRPC_UNIX`; images set them."""
    listen = os.environ.get("CROSSGATE_WORKER_LISTEN", "")
    path = os.environ.get("CROSSGATE_SERVE_GRPC_UNIX", "")
    try:
        if listen:
            check_pool(parse_pool_address(listen))
        elif path:
            check_gateway(path)
        else:
            raise Unwell("neither CROSSGATE_WORKER_LISTEN nor CROSSGATE_SERVE_GRPC_UNIX is set")
    except (Unwell, PoolAddressInvalid) as error:
        sys.exit(f"unwell: {error}")


if __name__ == "__main__":
    main()
