"""TLS and Unix sockets of both clients."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import trustme

from crossgate import AsyncClient, Client, NotOffered, Unavailable, tls_credentials
from crossgate.channel import channel_options
from protos import inference_pb2_grpc

X = {"x": np.array([[1.5, 2.0]], np.float32)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name in ("localhost", "client"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture
def secured(serve, files):
    """Return the address of a server that asks for a certificate."""
    own = [((files / "localhost.key").read_bytes(), (files / "localhost.crt").read_bytes())]
    ca = (files / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials(own, ca, require_client_auth=True)
    server = serve(credentials=credentials)
    return f"localhost:{server.address.rpartition(':')[2]}"


@pytest.fixture(params=["client", "async client"])
def infer(request):
    """One inference by either client."""

    async def awaited(*arguments, **settings):
        async with AsyncClient(*arguments, **settings) as client:
            return await client.infer("double", X)

    def call(*arguments, **settings):
        settings = {"retries": 0, "timeout_s": 5.0, **settings}
        if request.param == "async client":
            return asyncio.run(awaited(*arguments, **settings))
        with Client(*arguments, **settings) as client:
            return client.infer("double", X)

    return call


def test_credentials_of_files_identify_both_sides(secured, files, infer):
    credentials = tls_credentials(
        files / "ca.crt", certificate=str(files / "client.crt"), key=files / "client.key"
    )
    assert infer(secured, credentials=credentials)["y"].tolist() == [[3, 4]]


def test_client_without_the_certificate_that_is_asked_for_gets_nowhere(secured, files, infer):
    with pytest.raises(Unavailable):
        infer(secured, credentials=tls_credentials(files / "ca.crt"))


def test_gateway_of_an_unknown_authority_is_not_trusted(secured, infer):
    with pytest.raises(Unavailable):
        infer(secured, credentials=tls_credentials())


def test_certificate_without_its_key_is_refused_and_a_missing_file_named(files):
    with pytest.raises(ValueError, match="belong together"):
        tls_credentials(certificate=files / "client.crt")
    with pytest.raises(FileNotFoundError, match=r"nothing\.crt"):
        tls_credentials(files / "nothing.crt")


def test_unix_socket_is_an_endpoint(tmp_path, infer):
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        nothing = inference_pb2_grpc.GRPCInferenceServiceServicer()
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(nothing, server)
        server.add_insecure_port(f"unix:{tmp_path}/grpc.sock")
        server.start()
        try:
            with pytest.raises(NotOffered):
                infer(f"unix:{tmp_path}/grpc.sock")
        finally:
            server.stop(None).wait()


def test_path_of_a_socket_is_not_given_as_the_name_of_a_host():
    assert ("grpc.default_authority", "localhost") in channel_options("unix:/run/x.sock", 1)
    assert "grpc.default_authority" not in dict(channel_options("gateway:8001", 1))
