from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from pathlib import Path

import grpc
import pytest
import trustme

from crossgate import tls_credentials
from gateway.admin.server import SERVICE, AdminListening, AdminServer
from gateway.frontend.listening import ListenerInvalid, Tls
from protos import admin_pb2 as pb
from protos.admin_pb2_grpc import AdminStub


@pytest.fixture
def folder():
    """A short path: those of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cg-") as path:
        yield Path(path)


@contextlib.asynccontextmanager
async def serving(world, **listening):
    server = AdminServer(world.view(), world.controls(), world, world.clock, AdminListening(**listening))
    try:
        addresses = await server.start()
        running = asyncio.create_task(server.run())
        try:
            yield addresses
        finally:
            running.cancel()
            await asyncio.wait([running])
    finally:
        await server.close()


@pytest.fixture
async def stub(world, folder):
    """A client of a server on a Unix socket."""
    async with serving(world, unix=folder / "a.sock") as (address,), channel_to(address) as channel:
        yield AdminStub(channel)


def channel_to(address, credentials=None):
    options = [("grpc.default_authority", "localhost")]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)


async def failure_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_all_rpcs_answer_on_a_unix_socket(world, stub):
    world.add("m", {"1": "ready"})
    assert (await stub.Status(pb.StatusRequest())).models[0].model == "m"
    assert (await stub.Explain(pb.ExplainRequest(model="m"))).by == "only"
    assert (await stub.Drain(pb.DrainRequest())).draining
    assert world.draining
    assert not (await stub.Drain(pb.DrainRequest(end=True))).draining
    logger = logging.getLogger("gateway.admin")
    before = logger.level
    request = pb.SetLogLevelRequest(level="debug", logger="gateway.admin", duration_seconds=60)
    answer = await stub.SetLogLevel(request)
    assert (answer.level, answer.reverts_in_seconds) == ("debug", 60.0)
    await stub.SetLogLevel(pb.SetLogLevelRequest(level="inherit", logger="gateway.admin"))
    assert logger.level == before


async def test_a_drain_with_exit_stops_the_process(world, stub):
    assert (await stub.Drain(pb.DrainRequest(exit=True))).exiting
    async with asyncio.timeout(5):
        while not world.stops:
            await asyncio.sleep(0)
    assert world.stopping
    code, details = await failure_of(stub.Drain(pb.DrainRequest(end=True)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "stopping" in details


@pytest.mark.parametrize(
    ("method", "request_", "words"),
    [
        ("Status", pb.StatusRequest(limit=1001), "a page has at most 1000 models"),
        ("Status", pb.StatusRequest(models=["m"] * 101), "at most 100 models or patterns"),
        ("Status", pb.StatusRequest(models=["m" * 201]), "at most 200 characters"),
        ("Explain", pb.ExplainRequest(model="m" * 201), "at most 200 characters"),
        ("Explain", pb.ExplainRequest(metadata={str(i): "" for i in range(101)}), "at most 100 metadata"),
        ("Drain", pb.DrainRequest(end=True, exit=True), "neither `exit` nor a deadline"),
        ("Drain", pb.DrainRequest(deadline_seconds=-1), "0 to 86400 seconds"),
        ("Drain", pb.DrainRequest(deadline_seconds=float("nan")), "0 to 86400 seconds"),
        ("SetLogLevel", pb.SetLogLevelRequest(level="loud"), "unknown log level 'loud'"),
        ("SetLogLevel", pb.SetLogLevelRequest(level="info", duration_seconds=0), "more than 0"),
    ],
)
async def test_a_wrong_request_is_refused_in_words(world, stub, method, request_, words):
    code, details = await failure_of(getattr(stub, method)(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details
    assert not world.draining


async def test_names_that_match_nothing_come_with_the_nearest(world, stub):
    world.add("digits", {"1": "ready"})
    answer = await stub.Status(pb.StatusRequest(models=["digist", "x*"]))
    hints = {each.pattern: each.hint for each in answer.unmatched}
    assert hints == {"digist": '; did you mean "digits"?', "x*": ""}


async def test_a_bug_in_a_request_harms_no_other(world, stub, caplog):
    configuration, world.configuration = world.configuration, None
    code, details = await failure_of(stub.Status(pb.StatusRequest()))
    assert code is grpc.StatusCode.INTERNAL
    assert "internal error" in details
    assert "NoneType" not in details
    assert "AttributeError" in caplog.text
    world.configuration = configuration
    assert (await stub.Status(pb.StatusRequest())).gateway.name == "gw"


async def test_an_unknown_method_is_not_implemented(stub, world, folder):
    async with channel_to(f"unix:{folder}/a.sock") as channel:
        call = channel.unary_unary(f"{SERVICE}Nothing")
        assert (await failure_of(call(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
async def test_a_watcher_sees_each_transition(world, stub):
    call = stub.WatchStatus(pb.WatchStatusRequest(interval_ms=60_000))
    async with asyncio.timeout(10):
        assert not (await call.read()).models
        world.add("m", {"1": "ready"})
        world.changed()
        assert [model.model for model in (await call.read()).models] == ["m"]
    call.cancel()


@pytest.mark.slow
async def test_a_watcher_sees_the_state_in_each_interval(world, stub):
    call = stub.WatchStatus(pb.WatchStatusRequest(interval_ms=200))
    async with asyncio.timeout(10):
        await call.read()
        world.in_flight = 4
        assert (await call.read()).gateway.in_flight == 4
    call.cancel()


async def test_an_interval_that_is_too_short_is_refused(stub):
    code, details = await failure_of(stub.WatchStatus(pb.WatchStatusRequest(interval_ms=10)).read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "from 200 to 3600000" in details


async def test_watchers_are_limited_and_leave_room_when_they_go(world, stub):
    calls = [stub.WatchStatus(pb.WatchStatusRequest()) for _ in range(16)]
    for call in calls:
        await call.read()
    code, _ = await failure_of(stub.WatchStatus(pb.WatchStatusRequest()).read())
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await stub.Status(pb.StatusRequest())).gateway.name == "gw"
    for call in calls:
        call.cancel()
    async with asyncio.timeout(5):
        while world.watchers:
            await asyncio.sleep(0)
    again = stub.WatchStatus(pb.WatchStatusRequest())
    assert (await again.read()).gateway.name == "gw"
    again.cancel()


async def test_the_socket_is_gone_at_the_end_and_watchers_are_told(world, folder):
    path = folder / "a.sock"
    async with channel_to(f"unix:{path}") as channel:
        async with serving(world, unix=path):
            call = AdminStub(channel).WatchStatus(pb.WatchStatusRequest())
            await call.read()
        code, _ = await failure_of(call.read())
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert not path.exists()


async def test_two_servers_cannot_share_a_socket(world, folder):
    async with serving(world, unix=folder / "a.sock"):
        with pytest.raises(OSError, match="another gateway listens there"):
            async with serving(world, unix=folder / "a.sock"):
                pass
        async with channel_to(f"unix:{folder}/a.sock") as channel:
            assert (await AdminStub(channel).Status(pb.StatusRequest())).gateway.name == "gw"


async def test_a_successor_answers_on_the_same_socket(world, folder):
    path = folder / "a.sock"
    async with serving(world, unix=path), serving(world, unix=path, replace=True):
        pass
    assert not path.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "gateway.example.org", "::"])
async def test_it_is_not_open_to_others(world, host):
    with pytest.raises(ListenerInvalid, match="TLS with a client CA"):
        async with serving(world, host=host):
            pass


async def test_plain_tcp_is_allowed_on_loopback(world):
    async with serving(world, host="127.0.0.1") as (address,), channel_to(address) as channel:
        assert (await AdminStub(channel).Status(pb.StatusRequest())).gateway.name == "gw"


@pytest.mark.slow
async def test_over_tls_only_clients_with_a_certificate_get_in(world, folder):
    authority = trustme.CA()
    issued, client = authority.issue_cert("localhost"), authority.issue_cert("operator@example.org")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name, certificate in (("tls", issued), ("client", client)):
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    tls = Tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    async with serving(world, host="127.0.0.1", tls=tls) as (address,):
        known = tls_credentials(
            folder / "ca.crt", certificate=folder / "client.crt", key=folder / "client.key"
        )
        async with channel_to(address, known) as channel:
            assert (await AdminStub(channel).Status(pb.StatusRequest())).gateway.name == "gw"
        async with channel_to(address, tls_credentials(folder / "ca.crt")) as channel:
            code, _ = await failure_of(AdminStub(channel).Status(pb.StatusRequest(), timeout=5))
            assert code is grpc.StatusCode.UNAVAILABLE


async def test_rates_are_sampled_while_it_runs(world, stub):
    world.add("m", {"1": "ready"})
    world.run("m", "1", 50)
    world.clock.ns += 5_000_000_000
    (model,) = (await stub.Status(pb.StatusRequest())).models
    assert model.versions[0].figures.requests_per_second == pytest.approx(10)
