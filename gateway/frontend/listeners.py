"""How a grpcio server is set up and where it listens, from a `Listening`."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import grpc

from gateway.frontend.certificates import Certificates
from gateway.frontend.listening import CONNECTION_AGE_GRACE_S

if TYPE_CHECKING:
    from gateway.frontend.certificates import Pem
    from gateway.frontend.listening import Listening, Tls

_MAX_PATH_BYTES = 107  # of sun_path in Linux, less the zero behind it


def server_options(listening: Listening) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", listening.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # checked by the front end, whose message names the limit
        ("grpc.max_concurrent_streams", listening.max_concurrent_streams),
        # It counts streams that are over and not yet freed: clients that keep to the limit were refused.
        ("grpc.http.overload_protection", 0),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if listening.keepalive_s:
        options.append(("grpc.keepalive_time_ms", _milliseconds(listening.keepalive_s)))
        timeout_ms = _milliseconds(listening.keepalive_timeout_s)
        options.append(("grpc.keepalive_timeout_ms", timeout_ms))
        options.append(("grpc.http2.ping_timeout_ms", timeout_ms))  # else a minute at least
    if listening.max_connection_age_s:
        options.append(("grpc.max_connection_age_ms", _milliseconds(listening.max_connection_age_s)))
        options.append(("grpc.max_connection_age_grace_ms", _milliseconds(CONNECTION_AGE_GRACE_S)))
    return options


def open_listeners(server: Any, listening: Listening) -> str:
    """Add the ports to a server that has not started; return the address of the one on TCP.

    Raises:
        ListenerInvalid: the TLS files cannot be used.
        OSError
    """
    address = f"{listening.host}:{listening.port}"
    _check_port(address)
    port = _add(server, address, listening.tls)
    if listening.unix is not None:
        _check_socket(listening.unix)
        _add(server, f"unix:{listening.unix}", None)
    return f"{listening.host}:{port}"


def _add(server: Any, address: str, tls: Tls | None) -> int:
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, _credentials(tls)))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """gRPC asks for the certificate at every handshake, in a thread of its own."""
    certificates = Certificates(tls)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        pem = certificates.renewed()
        return None if pem is None else _configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates.pem),
        renewed,
        require_client_authentication=tls.client_ca is not None,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca)


def _check_port(address: str) -> None:
    """Raise OSError in plain words where gRPC would write to stderr and name its debug variables."""
    host, _, port = address.rpartition(":")
    if not int(port):
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error


def _check_socket(path: str) -> None:
    """Raise OSError for a path that cannot be bound. gRPC itself removes whatever socket is there: only one
    that nobody listens on any more may go.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise OSError(f"cannot listen on {path}: the path of a socket has at most {_MAX_PATH_BYTES} bytes")
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"cannot listen on {path}: it is there and is no socket")
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(f"cannot listen on {path}: {folder} cannot be written to") from None
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise OSError(f"cannot listen on {path}: {error.strerror or error}") from error
    raise OSError(f"cannot listen on {path}: another process listens there")


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
