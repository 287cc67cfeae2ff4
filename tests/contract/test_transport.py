"""What every front end makes of `Listening`: sockets, TLS, and the limits of a connection."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time

import grpc
import pytest
import trustme
from front_ends import SERVE
from gateway_process import GatewayProcess
from grpc import StatusCode
from raw_connection import GOAWAY, MAX_CONCURRENT_STREAMS, PING, SETTINGS, RawConnection
from sample_requests import ONE
from served_models import UNBATCHED, write_loopback
from wire_calls import CALL_S, Wire, request

pytestmark = pytest.mark.slow

NAME = "localhost"
STREAMS = 7
AGE_S = 0.6
RUN_US = 250_000
KEEPALIVE_S = 0.3


class Authority:
    """Signs certificates, and writes them as renewals do: each file is replaced as a whole."""

    def __init__(self):
        self._ca = trustme.CA()

    def issue(self):
        return self._ca.issue_cert(NAME)

    @property
    def pem(self):
        return self._ca.cert_pem.bytes()

    def trusting(self, own=None):
        """Return a client's credentials, with a certificate of its own where it has one."""
        if own is None:
            return grpc.ssl_channel_credentials(self.pem)
        chain = own.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(self.pem, own.private_key_pem.bytes(), chain)


class Files:
    def __init__(self, folder, authority):
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.client_ca = folder / "ca.crt"
        self.client_ca.write_bytes(authority.pem)
        self.write(authority.issue())
        self.arguments = ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))

    def write(self, issued):
        self.replace(self.certificate, issued.cert_chain_pems[0].bytes())
        self.replace(self.key, issued.private_key_pem.bytes())

    def replace(self, path, content):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, path)


def local(address):
    """The name that the certificates are for."""
    return f"{NAME}:{address.rpartition(':')[2]}"


def shown_certificate(address):
    """Return what a new connection is shown, as DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=CALL_S) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert(binary_form=True)


def as_der(issued):
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def eventually(condition):
    until_s = time.monotonic() + CALL_S
    while not condition():
        assert time.monotonic() < until_s, "it did not come about"
        time.sleep(0.02)


def code_of(address, credentials=None):
    with Wire(address, credentials) as wire:
        return wire.refused(request("echo", ONE)).code()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def start(frontend_arguments, tmp_path_factory):
    def start(*arguments):
        folder = tmp_path_factory.mktemp("transport")
        models = folder / "models"
        write_loopback(models, "echo", [("x", "FP32", [1])])
        write_loopback(models, "slow", [("x", "FP32", [1])], options={"delay_us": RUN_US}, batching=UNBATCHED)
        return GatewayProcess(models, folder / "gateway.log", *SERVE, *frontend_arguments, *arguments)

    return start


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    return Files(tmp_path_factory.mktemp("tls"), authority)


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory):
    return tmp_path_factory.mktemp("socket") / "grpc.sock"


@pytest.fixture(scope="module")
def secured(start, files, socket_path):
    """TLS on the port, plain text on a Unix socket; peers that stay silent are soon given up."""
    keepalive = ("--keepalive-s", str(KEEPALIVE_S), "--keepalive-timeout-s", str(KEEPALIVE_S))
    with start(*files.arguments, "--grpc-unix", str(socket_path), *keepalive) as process:
        yield process


@pytest.fixture(scope="module")
def mutual(start, files):
    with start(*files.arguments, "--tls-client-ca", str(files.client_ca)) as process:
        yield process


@pytest.fixture(scope="module")
def aging(start):
    limits = ("--max-connection-age-s", str(AGE_S), "--max-concurrent-streams", str(STREAMS))
    with start(*limits) as process:
        yield process


class TestTransport:
    """Every test runs against every front end that `conftest` lists."""

    # -- listeners ---

    def test_unix_socket_serves_plain_text_beside_the_port(self, secured, socket_path):
        with Wire(f"unix:{socket_path}") as wire:
            assert wire.infer(request("echo", ONE)).array("x_out").tolist() == [1.0]

    def test_unix_socket_of_a_live_process_is_not_taken_away(self, secured, socket_path, frontend_arguments):
        message = refused_start(*frontend_arguments, "--grpc-unix", str(socket_path))
        assert str(socket_path) in message
        with Wire(f"unix:{socket_path}") as wire:
            wire.infer(request("echo", ONE))

    def test_unix_socket_that_was_left_behind_is_taken_over(self, start, tmp_path):
        path = tmp_path / "grpc.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        with start("--grpc-unix", str(path)) as process, Wire(f"unix:{path}") as wire:
            wire.infer(request("echo", ONE))
            process.terminate()
            assert process.wait(CALL_S) == 0
        assert not path.exists()

    # -- TLS ---

    def test_tls_serves_those_who_trust_its_authority(self, secured, authority):
        with Wire(local(secured.grpc), authority.trusting()) as wire:
            assert wire.infer(request("echo", ONE)).array("x_out").tolist() == [1.0]

    def test_tls_port_does_not_serve_plain_text(self, secured):
        assert code_of(secured.grpc) == StatusCode.UNAVAILABLE

    def test_client_with_a_certificate_of_the_authority_is_served(self, mutual, authority):
        with Wire(local(mutual.grpc), authority.trusting(own=authority.issue())) as wire:
            wire.infer(request("echo", ONE))

    def test_client_without_a_certificate_is_refused(self, mutual, authority):
        assert code_of(local(mutual.grpc), authority.trusting()) == StatusCode.UNAVAILABLE

    def test_client_with_a_certificate_of_someone_else_is_refused(self, mutual, authority):
        foreign = authority.trusting(own=Authority().issue())
        assert code_of(local(mutual.grpc), foreign) == StatusCode.UNAVAILABLE

    def test_replaced_certificate_is_shown_to_new_connections(self, secured, files, authority):
        with Wire(local(secured.grpc), authority.trusting()) as old:
            old.infer(request("echo", ONE))
            renewed = authority.issue()
            files.write(renewed)
            eventually(lambda: shown_certificate(secured.grpc) == as_der(renewed))
            with Wire(local(secured.grpc), authority.trusting()) as new:
                new.infer(request("echo", ONE))
            old.infer(request("echo", ONE))

    def test_broken_replacement_leaves_the_certificate_before_it(self, secured, files, authority):
        good, other = authority.issue(), authority.issue()
        files.write(good)
        eventually(lambda: shown_certificate(secured.grpc) == as_der(good))
        said = secured.log_size_bytes
        files.replace(files.key, other.private_key_pem.bytes())
        # a connection may be what makes it look
        eventually(lambda: shown_certificate(secured.grpc) and "TLS" in secured.log(said))
        assert '"level": "warning"' in secured.log(said)
        assert shown_certificate(secured.grpc) == as_der(good)
        files.replace(files.certificate, other.cert_chain_pems[0].bytes())
        eventually(lambda: shown_certificate(secured.grpc) == as_der(other))

    def test_files_that_cannot_be_used_are_an_error_at_the_start(
        self, files, authority, tmp_path, frontend_arguments
    ):
        key = tmp_path / "other.key"
        authority.issue().private_key_pem.write_to_path(key)
        message = refused_start(
            *frontend_arguments, "--tls-cert", str(files.certificate), "--tls-key", str(key)
        )
        assert str(key) in message or str(files.certificate) in message

    # -- connections ---

    def test_limit_of_concurrent_streams_is_announced(self, aging):
        with RawConnection(aging.grpc, answers=True, timeout_s=CALL_S) as connection:
            settings = next(frame for frame in connection.frames() if frame.type == SETTINGS)
        assert settings.settings()[MAX_CONCURRENT_STREAMS] == STREAMS

    def test_more_calls_than_streams_are_all_answered(self, aging):
        with Wire(aging.grpc) as wire:
            calls = [wire.start(request("echo", ONE, id=str(i))) for i in range(5 * STREAMS)]
            assert [call.result().id for call in calls] == [str(i) for i in range(5 * STREAMS)]

    def test_old_connection_is_asked_to_go(self, aging):
        started = time.monotonic()
        with RawConnection(aging.grpc, answers=True, timeout_s=CALL_S) as connection:
            assert GOAWAY in (frame.type for frame in connection.frames())
        assert time.monotonic() - started >= AGE_S * 0.85  # ages are spread by a tenth

    def test_no_request_fails_while_connections_come_and_go(self, aging):
        connected = []
        with Wire(aging.grpc) as wire:
            wire.channel.subscribe(connected.append)
            until_s = time.monotonic() + 3.5 * AGE_S
            served = 0
            while time.monotonic() < until_s:
                calls = [wire.start(request("slow", ONE)) for _ in range(3)]
                served += sum(call.result().id == "" for call in calls)
        assert served >= 3 * 3
        assert connected.count(grpc.ChannelConnectivity.READY) >= 2

    def test_peer_that_does_not_answer_pings_is_given_up(self, secured, socket_path):
        started = time.monotonic()
        with RawConnection(f"unix:{socket_path}", answers=False, timeout_s=CALL_S) as connection:
            assert PING in [frame.type for frame in connection.frames()]
        assert time.monotonic() - started >= 2 * KEEPALIVE_S * 0.85


def refused_start(*arguments):
    """Return the error of a gateway that does not start."""
    command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", "--grpc-port", "0", "--http-port", "0"]
    result = subprocess.run(
        [*command, "--models", os.path.dirname(__file__), *arguments],
        capture_output=True, text=True, timeout=CALL_S, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result
    return next(line for line in result.stderr.splitlines() if line.startswith("error: "))
